"""`cli.py presentation`: whether a presentation file can be used, and what phones show with it."""

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from commands.context import print_table
from domain.kinds import Kind
from domain.locales import locale, plural_forms
from domain.preferences import Preview
from domain.presentation import Content, Gap, Presentation, worded
from settings.environment import ConfigError
from settings.presentations import presentation_in

LEFT = (125, 60, 1, 0)  # minutes of the reminders that are shown
MESSAGE = "Shall we eat at 8?"


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `presentation` with its own commands."""
    actions = commands.add_parser("presentation", help="files with an app's texts, links and sounds").add_subparsers(
        required=True, metavar="action"
    )
    check = actions.add_parser("check", help="say whether a file can be used, and which texts it leaves out")
    check.set_defaults(command=_check)
    preview = actions.add_parser("preview", help="show each kind of notification in each locale")
    preview.add_argument("--locale", metavar="L", help="as a phone with this locale shows them (BCP 47)")
    preview.set_defaults(command=_preview)
    for each in (check, preview):
        each.add_argument("file", type=Path, metavar="FILE", help="a presentation file (docs/presentation.md)")


def _check(arguments: argparse.Namespace) -> int:
    found = presentation_in(arguments.file)
    print(f"{arguments.file} can be used.")
    missing = list(_left_to_us(found))
    if missing:
        print(f"Not in it, so its default locale or the shipped texts stand in: {', '.join(missing)}.")
    lacking, unused = _plurals(found)
    if lacking:
        print(f"Plural forms that are not in it, so `other` stands in: {', '.join(lacking)}.")
    if unused:
        print(f"Plural forms that these locales do not have, so they are never shown: {', '.join(unused)}.")
    return 0


def _preview(arguments: argparse.Namespace) -> int:
    found = presentation_in(arguments.file)
    if arguments.locale is not None and locale(arguments.locale) is None:
        raise ConfigError("--locale must be a locale such as en, pt-BR or zh-Hant-TW.")
    phones = (
        [arguments.locale] if arguments.locale else sorted({tag for each in found.texts.values() for tag in each.of})
    )
    print(f"link {found.link}, badge {found.badge}")
    print()
    on_iphone = ("SOUND", "LEVEL", "RELEVANCE", "CATEGORY", "THREAD")
    on_android = ("CHANNEL", "QUIET CHANNEL", "PRIORITY", "ICON", "COLOR")
    print_table(("KIND", *on_iphone, *on_android), [_look(found, kind) for kind in Kind])
    print()
    print_table(
        ("PHONE", "TEXTS", "KIND", "CASE", "CHARACTERS", "TITLE", "BODY"),
        [row for phone in phones for row in _rows(found, phone)],
    )
    return 0


def _look(found: Presentation, kind: Kind) -> tuple[object, ...]:
    look = found.looks[kind]
    named = (look.sound or None, look.level, look.relevance, look.category, look.thread)
    return (kind, *named, look.channel, look.quiet_channel, look.priority, look.icon, look.color)


def _rows(found: Presentation, phone: str) -> Iterator[tuple[object, ...]]:
    """Word every kind for one phone: reminders with more and less time left, and texts for hidden previews."""
    labels = {name: name for name in _labels(found)}
    reminders = [(f"{left} min", Content(left, labels=labels)) for left in LEFT]
    reminders += [("no labels", Content(LEFT[0]))] if labels else []
    cases = {Kind.REMINDER: reminders, Kind.MESSAGE: [("", Content(body=MESSAGE))], Kind.TEST: [("", Content())]}
    for kind in Kind:
        for preview, contents in ((Preview.FULL, cases[kind]), (Preview.GENERIC, [("generic", Content())])):
            tag, _ = found.texts[kind, preview].serving(phone)
            for case, content in contents:
                words = worded(found, kind, phone, preview, content)
                yield phone, tag, kind, case, f"{len(words.title)} + {len(words.body)}", words.title, words.body


def _labels(found: Presentation) -> list[str]:
    """List the labels that the texts use."""
    every = [texts for catalogue in found.texts.values() for texts in catalogue.of.values()]
    templates = chain.from_iterable(
        forms.values() for texts in every for forms in (texts.title, texts.body, texts.now or {})
    )
    gaps = {part.name for part in chain.from_iterable(templates) if isinstance(part, Gap)}
    return sorted(name.removeprefix("label.") for name in gaps if name.startswith("label."))


def _plurals(found: Presentation) -> tuple[list[str], list[str]]:
    """List the plural forms that a file lacks for its locales, and those that they do not have."""
    lacking: list[str] = []
    unused: list[str] = []
    for (kind, preview), catalogue in found.texts.items():
        for tag, texts in catalogue.of.items() if preview is Preview.FULL else ():
            for name, forms in (("title", texts.title), ("body", texts.body)):
                if len(forms) > 1 and f"{tag}.{kind}.{name}" in found.own:
                    path, has = f"texts.{tag}.{kind}.{name}", plural_forms(tag)
                    lacking += [f"{path}.{each}" for each in sorted(has - forms.keys())]
                    unused += [f"{path}.{each}" for each in sorted(forms.keys() - has - {"other"})]
    return lacking, unused


def _left_to_us(found: Presentation) -> Iterator[str]:
    """List the keys that a file leaves out, in the locales in which it has texts."""
    for tag in sorted({key.split(".")[0] for key in found.own}):
        for kind in Kind:
            for name in ("title", "body"):
                for key in (f"{tag}.{kind}.{name}", f"{tag}.generic.{kind}.{name}"):
                    if key not in found.own:
                        yield f"texts.{key}"
