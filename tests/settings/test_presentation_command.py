"""`cli.py presentation`: a file checked, and every kind shown in every locale."""

from pathlib import Path

import pytest

import domain
from cli import main
from commands.doctor.checks import check_settings
from commands.doctor.report import Level

TEA = """
link = "teatime://{path}"
[texts.en.reminder]
title = "Your tea is nearly ready"
body = "{left} to go, {label.name}."
[texts.ja.reminder]
title = "お茶"
body = "{label.name}: {left}"
"""
SHIPPED = Path(domain.__file__).parent / "presentation.toml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An app's file."""
    file = tmp_path / "tea.toml"
    file.write_text(TEA)
    return file


def test_a_good_file_is_called_so_with_what_it_leaves_out(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presentation", "check", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{file} can be used.\nNot in it, so its default locale or the shipped texts stand in: ")
    assert "texts.en.generic.reminder.title" in out
    assert "texts.en.reminder.title" not in out

    assert main(["presentation", "check", str(SHIPPED)]) == 0
    assert capsys.readouterr().out == f"{SHIPPED} can be used.\n"


def test_plural_forms_that_a_locale_lacks_or_does_not_have_are_named(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(
        "[texts.ru.reminder]\nbody.one = '{left}'\nbody.other = '{left}'\n"
        "[texts.en.reminder]\nbody.zero = '0'\nbody.one = '1'\nbody.other = '{left}'\n"
        "[texts.ja.reminder]\nbody = '{left}'\n"
    )

    assert main(["presentation", "check", str(file)]) == 0

    lacking = "texts.ru.reminder.body.few, texts.ru.reminder.body.many"
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"Plural forms that are not in it, so `other` stands in: {lacking}.",
        "Plural forms that these locales do not have, so they are never shown: texts.en.reminder.body.zero.",
    ]


@pytest.mark.parametrize("action", ["check", "preview"])
def test_a_wrong_file_is_one_sentence(file: Path, action: str, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[texts.en.reminder]\nbody = '{lable.name}'")
    assert main(["presentation", action, str(file)]) == 2
    assert capsys.readouterr().err == (
        f"{file}: texts.en.reminder.body: {{lable.name}} is not a placeholder of this text;"
        " known are {left} and {label.NAME}.\n"
    )

    file.unlink()
    assert main(["presentation", action, str(file)]) == 2
    assert capsys.readouterr().err == f"{file} cannot be read: No such file or directory.\n"


def test_the_preview_has_all_kinds_and_lengths_for_one_phone(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presentation", "preview", str(file), "--locale", "sv-FI"]) == 0

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "link teatime://{path}, badge none"
    assert "reminder default - - - - reminders quiet high - -" in lines
    assert lines[-10:] == [
        "sv-FI en reminder 125 min 24 + 30 Your tea is nearly ready 2 hours 5 minutes to go, name.",
        "sv-FI en reminder 60 min 24 + 19 Your tea is nearly ready 1 hour to go, name.",
        "sv-FI en reminder 1 min 24 + 21 Your tea is nearly ready 1 minute to go, name.",
        "sv-FI en reminder 0 min 24 + 22 Your tea is nearly ready 0 minutes to go, name.",
        "sv-FI en reminder no labels 24 + 24 Your tea is nearly ready 2 hours 5 minutes to go.",
        "sv-FI sv reminder generic 10 + 27 Påminnelse Öppna appen för att se den.",
        "sv-FI sv message 15 + 18 Nytt meddelande Shall we eat at 8?",
        "sv-FI sv message generic 15 + 29 Nytt meddelande Öppna appen för att läsa det.",
        "sv-FI sv test 9 + 30 Testnotis Notiser når den här telefonen.",
        "sv-FI sv test generic 9 + 30 Testnotis Notiser når den här telefonen.",
    ]


def test_the_preview_without_a_locale_shows_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presentation", "preview", str(SHIPPED)]) == 0

    out = capsys.readouterr().out
    assert out.count("\n") == 8 + 16 * 9
    assert "还剩2小时5分钟。" in out
    assert "الوقت المتبقي: ساعتان و5 دقائق." in out


def test_a_locale_that_is_none_is_refused(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presentation", "preview", str(file), "--locale", "nonsense!"]) == 2
    assert capsys.readouterr().err == "--locale must be a locale such as en, pt-BR or zh-Hant-TW.\n"


def test_the_doctor_checks_every_file_and_says_that_processes_keep_what_they_had(file: Path) -> None:
    apps = file.parent / "apps.toml"
    apps.write_text('[tea]\npresentation = "broken.toml"\n[plain]\nfcm.service_account_file = "none.json"')
    (file.parent / "broken.toml").write_text("badge = 7")
    environ = {"DATABASE_URL": "postgresql://127.0.0.1/x", "PRESENTATION_FILE": str(file), "APPS_FILE": str(apps)}

    lines = {line.found: line for line in check_settings(environ, ("api",)).lines}

    assert lines["presentation file of the default app: can be used"].level is Level.OK
    broken = f"APPS_FILE, app tea, presentation: {file.parent}/broken.toml: badge must be one of none, unread."
    assert lines[broken].level is Level.FAILURE
    assert "Running processes keep what they had." in str(lines[broken].to_do)
