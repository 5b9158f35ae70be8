"""Reads a presentation file (TOML): docs/presentation.md. What it leaves out is as `presentation.toml` beside this."""

import difflib
import json
import re
import string
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar
from unicodedata import category
from urllib.parse import urlsplit

from domain.fasts import LABEL_NAME
from domain.kinds import Kind
from domain.locales import LONGEST_LOCALE, conventions, fallbacks, language, locale
from domain.preferences import Preview
from domain.presentation import (
    DIRECTIONS,
    Badge,
    Catalogue,
    DeliveryPriority,
    Forms,
    Gap,
    InterruptionLevel,
    Look,
    Presentation,
    Template,
    Texts,
    is_seen,
)

LARGEST_FILE = 256 * 1024  # bytes
MAX_LOCALES = 200
LONGEST_LINK = 300  # characters
LONGEST_NAME = 100  # characters: of sounds, channels, categories, threads, icons
LONGEST_TITLE, LONGEST_BODY = 200, 1000  # characters
GENERIC_BYTES = {"title": 200, "body": 400}  # in JSON: a sealed push carries them up to three times
_PLURALS = ("zero", "one", "two", "few", "many", "other")
_GENERIC = "generic"
_LINK = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+", re.IGNORECASE)
_NO_APP = re.compile(  # schemes of the web, and of what phones open themselves
    r"https?|ftp|wss?|file|filesystem|data|blob|about|content|jar|chrome|view-source"
    r"|javascript|vbscript|livescript|mocha|intent|android-app|market|itms(-apps|-services)?"
    r"|tel|telprompt|sms|smsto|mms|mmsto|mailto|facetime(-audio)?|geo|prefs|app-prefs|ms-settings"
)
_HOST = re.compile(r"(?:[a-z0-9_-]+\.)*[a-z0-9_-]+")  # in ASCII
_GAPS: Mapping[Kind, Mapping[str, frozenset[str]]] = {  # of each text; `label` is any label
    Kind.REMINDER: {
        "title": frozenset({"left", "label"}),
        "body": frozenset({"left", "label"}),
        "now": frozenset({"label"}),
    },
    Kind.MESSAGE: {"title": frozenset(), "body": frozenset({"text"})},
    Kind.TEST: {"title": frozenset(), "body": frozenset()},
}
_CONTROLS = {"Cc", "Zl", "Zp"}  # Unicode's categories
T = TypeVar("T")


class UnusablePresentation(ValueError):
    """A presentation file cannot be used; the message names the key, without a full stop."""


@dataclass(frozen=True, slots=True)
class _Partly:
    """The texts of one kind in one locale, as far as a file has them."""

    title: Forms | None = None
    body: Forms | None = None
    now: Forms | None = None


def presentation(content: bytes) -> Presentation:
    """Read a file; raises UnusablePresentation."""
    try:
        return _read(content, SHIPPED)
    except RecursionError:
        raise UnusablePresentation("it is nested too deeply") from None


def _read(content: bytes, base: Presentation | None) -> Presentation:
    table = _toml(content)
    _known("", table, {"link", "badge", "default_locale", "texts", *Kind})
    looks = {} if base is None else dict(base.looks)
    for kind in Kind:
        looks[kind] = _look(kind.value, _table(kind.value, table.get(kind, {})), looks.get(kind, Look()))
    default = table.get("default_locale")
    texts = {_tag("texts", each): (each, _table(f"texts.{each}", of)) for each, of in _tables("texts", table).items()}
    if len(texts) != len(table.get("texts", {})) or len(texts) > MAX_LOCALES:
        raise UnusablePresentation(f"texts has a locale twice, or more than {MAX_LOCALES} locales")
    if default is not None and (default := _tag("default_locale", default)) not in texts:
        raise UnusablePresentation(f"default_locale: there is no table texts.{table['default_locale']}")
    own: dict[tuple[Kind, Preview], dict[str, _Partly]] = {}
    for tag, (written, kinds) in texts.items():
        _known(f"texts.{written}", kinds, {*Kind, _GENERIC})
        generic = _tables(f"texts.{written}", kinds, _GENERIC)
        _known(f"texts.{written}.generic", generic, set(Kind))
        for kind in Kind:
            for preview, found in ((Preview.FULL, kinds), (Preview.GENERIC, generic)):
                if kind in found:
                    own.setdefault((kind, preview), {})[tag] = _partly(written, kind, preview, found[kind])
    return Presentation(
        link=_checked("link", table, _link, base.link if base else ""),
        badge=_checked("badge", table, partial(_one_of, Badge), Badge.NONE),
        looks=looks,
        texts={
            (kind, preview): _catalogue((kind, preview), own.get((kind, preview), {}), default, base)
            for kind in Kind
            for preview in Preview
        },
        own=frozenset(_keys(own)),
    )


def _catalogue(
    which: tuple[Kind, Preview], own: Mapping[str, _Partly], default: str | None, base: Presentation | None
) -> Catalogue:
    """Fill up what a file leaves out. An app that words a kind itself speaks no language of ours beside its own."""
    if not own:
        assert base is not None
        return base.texts[which]
    first = default if default and default in own else "en" if "en" in own else next(iter(own))
    if base is None:
        return Catalogue({tag: Texts(each.title or {}, each.body or {}, each.now) for tag, each in own.items()}, first)
    ours = base.texts[which]
    return Catalogue({tag: _filled_up(each, own[first], ours.serving(tag)[1]) for tag, each in own.items()}, first)


def _filled_up(own: _Partly, default: _Partly, ours: Texts) -> Texts:
    """Take what one locale lacks from the file's default locale, then from the shipped texts."""
    title, body = (own.title or default.title or ours.title), (own.body or default.body or ours.body)
    instead = None if own.body else default.now or (None if default.body else ours.now)
    return Texts(title, body, own.now or instead)


def _keys(own: Mapping[tuple[Kind, Preview], Mapping[str, _Partly]]) -> Iterable[str]:
    for (kind, preview), of in own.items():
        for tag, each in of.items():
            for name in ("title", "body", "now"):
                if getattr(each, name) is not None:
                    yield ".".join((tag, *([_GENERIC] if preview is Preview.GENERIC else []), kind, name))


def _partly(tag: str, kind: Kind, preview: Preview, table: Any) -> _Partly:  # noqa: ANN401 -- whatever TOML holds
    generic = preview is Preview.GENERIC
    path = f"texts.{tag}.{'generic.' if generic else ''}{kind}"
    names = {"title", "body"} if generic else set(_GAPS[kind])
    _known(path, _table(path, table), names)
    read = {
        name: _forms(f"{path}.{name}", value, generic=generic, gaps=frozenset() if generic else _GAPS[kind][name])
        for name, value in table.items()
    }
    return _Partly(**read)


def _forms(path: str, value: object, *, generic: bool, gaps: frozenset[str]) -> Forms:
    """Read a text, or its plural forms."""
    if isinstance(value, str):
        return {"other": _template(path, value, generic=generic, gaps=gaps)}
    if not isinstance(value, dict):
        raise UnusablePresentation(f"{path} must be a text, or a table of its plural forms")
    if "left" not in gaps:
        raise UnusablePresentation(f"{path} has plural forms, and no {{left}} to choose one by")
    _known(path, value, set(_PLURALS))
    if "other" not in value:
        raise UnusablePresentation(f"{path}.other is not set, the form for all other numbers")
    return {name: _template(f"{path}.{name}", form, generic=generic, gaps=gaps) for name, form in value.items()}


def _template(path: str, value: object, *, generic: bool, gaps: frozenset[str]) -> Template:
    name = path.rsplit(".", 1)[-1]
    text = _text(path, value, LONGEST_TITLE if name == "title" else LONGEST_BODY)
    if generic and len(json.dumps(text, ensure_ascii=False).encode()) - 2 > GENERIC_BYTES[name]:
        raise UnusablePresentation(f"{path} may have at most {GENERIC_BYTES[name]} bytes of UTF-8")
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError:
        raise UnusablePresentation(f"{path} has half a pair of braces; a brace itself is written twice") from None
    template: list[str | Gap] = []
    for literal, gap, form, conversion in parts:
        template += [literal] if literal else []
        if gap is not None:
            template.append(_gap(path, gap, form, conversion, gaps))
    return tuple(template)


def _gap(path: str, name: str, form: str | None, conversion: str | None, gaps: frozenset[str]) -> Gap:
    label = LABEL_NAME.fullmatch(name.removeprefix("label.")) if name.startswith("label.") else None
    if not form and not conversion and (name in gaps - {"label"} or (label and "label" in gaps)):
        return Gap(name)
    shown = "{" + name[:40] + "}"
    known = " and ".join("{label.NAME}" if each == "label" else f"{{{each}}}" for each in sorted(gaps, reverse=True))
    why = f"known are {known}" if gaps else "this text has none"
    raise UnusablePresentation(f"{path}: {_printable(shown)} is not a placeholder of this text; {why}")


def _look(path: str, table: Mapping[str, Any], look: Look) -> Look:
    readers: Mapping[str, Callable[[str, Any], Any]] = {
        "sound": partial(_name, empty=True),
        "channel": _name,
        "quiet_channel": _name,
        "category": _name,
        "level": partial(_one_of, InterruptionLevel),
        "relevance": _share,
        "thread": _thread,
        "priority": partial(_one_of, DeliveryPriority),
        "icon": _name,
        "color": _color,
    }
    _known(path, table, set(readers))
    return replace(look, **{name: readers[name](f"{path}.{name}", value) for name, value in table.items()})


def _toml(content: bytes) -> dict[str, Any]:
    if len(content) > LARGEST_FILE:
        raise UnusablePresentation(f"it has more than {LARGEST_FILE // 1024} KiB")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors begin a file with a mark
    except UnicodeDecodeError:
        raise UnusablePresentation("it is not TOML: not UTF-8") from None
    except ValueError as error:  # also a number of thousands of digits
        raise UnusablePresentation(f"it is not TOML: {_printable(str(error).partition(';')[0])}") from None


def _known(path: str, table: Mapping[str, object], names: Iterable[str]) -> None:
    names = sorted(names)
    for name in table:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            written = _printable(f"{path}.{name}" if path else name) or "''"
            raise UnusablePresentation(f"{written} is not a key; {hint}")


def _tables(path: str, table: Mapping[str, Any], name: str | None = None) -> Mapping[str, Any]:
    path = path if name is None else f"{path}.{name}"
    return _table(path, table.get(name or path, {}))


def _table(path: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnusablePresentation(f"{path} must be a table")
    return value


def _tag(path: str, value: Any) -> str:  # noqa: ANN401 -- whatever TOML holds
    """Check a locale; gives it in lower case."""
    is_one = isinstance(value, str) and len(value) <= LONGEST_LOCALE and locale(value) == value.replace("_", "-")
    if is_one and language(value) != "und" and conventions(value) is not None:
        return fallbacks(value)[0]
    raise UnusablePresentation(f"{path}: {_printable(str(value))!r} is not a locale such as en, pt-BR or zh-Hant")


def _checked(name: str, table: Mapping[str, Any], check: Callable[[str, Any], T], default: T) -> T:
    return check(name, table[name]) if name in table else default


def _one_of(words: Any, path: str, value: object) -> Any:  # noqa: ANN401 -- any enumeration of words
    if isinstance(value, str) and value in set(words):
        return words(value)
    raise UnusablePresentation(f"{path} must be one of {', '.join(words)}")


def _link(path: str, value: object) -> str:
    link = _text(path, value, LONGEST_LINK)
    before, _, after = link.partition("{path}")
    try:
        parts = urlsplit(before)
        whole = bool(_LINK.fullmatch(f"{before}x{after}")) and not set("{}") & set(before + after)
        whole = whole and "@" not in parts.netloc
        is_own = not _NO_APP.fullmatch(parts.scheme)
        is_host = bool(_HOST.fullmatch(parts.hostname or "")) and parts.port != 0  # reading it raises if it is none
        is_page = parts.scheme == "https" and is_host and bool(re.search(r"[/?#=]$", before))
    except ValueError:
        whole = is_own = is_page = False
    if "{path}" not in link or not whole or not (is_own or is_page):
        raise UnusablePresentation(
            f"{path} must be an address with {{path}} once, such as teatime://{{path}} or https://tea.example/{{path}}"
        )
    return link


def _name(path: str, value: object, *, empty: bool = False) -> str:
    if isinstance(value, str) and value == "" and empty:
        return value
    name = _text(path, value, LONGEST_NAME)
    if not re.fullmatch(r"[!-~]+(?: [!-~]+)*", name):
        raise UnusablePresentation(f"{path} must be ASCII, without blanks at its ends")
    return name


def _thread(path: str, value: object) -> str:
    thread = _name(path, value)
    if set("{}") & set(thread.replace("{id}", "")):
        raise UnusablePresentation(f"{path}: known is only {{id}}, of the fast or conversation")
    return thread


def _share(path: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UnusablePresentation(f"{path} must be a number from 0 to 1")
    return float(value)


def _color(path: str, value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        raise UnusablePresentation(f"{path} must be a colour such as #00bb66")
    return value.lower()


def _text(path: str, value: object, longest: int) -> str:
    if not isinstance(value, str):
        raise UnusablePresentation(f"{path} must be a text in quotes")
    if not value or len(value) > longest:
        raise UnusablePresentation(f"{path} must have 1 to {longest} characters")
    if not is_seen(value):
        raise UnusablePresentation(f"{path} has only blanks")
    if any(each in DIRECTIONS or category(each) in _CONTROLS for each in value.replace("\n", "")):
        raise UnusablePresentation(f"{path} has control characters, or such that turn the direction of writing")
    return value


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:200])


SHIPPED = _read(files("domain").joinpath("presentation.toml").read_bytes(), None)
