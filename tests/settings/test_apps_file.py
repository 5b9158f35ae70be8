"""The file of apps: read whole, refused with one sentence, followed by the API."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from api.app import create_app
from settings.apps_file import AppIds, app_settings
from settings.environment import AuthSettings, ConfigError, service_settings
from simulator import Simulator

APNS = 'key_file = "key.p8"\nkey_id = "K"\nteam_id = "T"\ntopic = "com.example.fast"\n'
FCM = 'service_account_file = "account.json"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file, with keys beside it."""
    for name in ("key.p8", "account.json"):
        (tmp_path / name).write_text("x")
    return tmp_path / "apps.toml"


def refused(file: Path, content: str) -> str:
    file.write_text(content)
    with pytest.raises(ConfigError) as raised:
        app_settings(file)
    return str(raised.value)


def test_apps_are_read_whole_and_paths_start_where_the_file_is(file: Path, simulator: Simulator) -> None:
    (file.parent / "ca.pem").write_bytes(Path(simulator.environment["FCM_CA_FILE"]).read_bytes())
    file.write_text(
        f'["com.example.fast"]\nencrypted = true\n["com.example.fast".apns]\n{APNS}'
        f'url = "https://127.0.0.1:1/"\n["com.example.fast".fcm]\n{FCM}ca_file = "ca.pem"\n[tea.fcm]\n{FCM}'
    )

    apps = app_settings(file)

    assert {app_id: app.model_dump() for app_id, app in apps.items()} == {
        "com.example.fast": {
            "encrypted": True,
            "presentation": None,
            "apns": {
                "key_file": file.parent / "key.p8",
                "key_id": "K",
                "team_id": "T",
                "topic": "com.example.fast",
                "url": "https://127.0.0.1:1",
                "sandbox_url": "https://api.sandbox.push.apple.com",
                "ca_file": None,
            },
            "fcm": {
                "service_account_file": file.parent / "account.json",
                "url": "https://fcm.googleapis.com",
                "ca_file": file.parent / "ca.pem",
            },
        },
        "tea": {
            "encrypted": False,
            "presentation": None,
            "apns": None,
            "fcm": {
                "service_account_file": file.parent / "account.json",
                "url": "https://fcm.googleapis.com",
                "ca_file": None,
            },
        },
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "APPS_FILE names no app; docs/apps.md shows one."),
        ("[fast", "APPS_FILE is not TOML: Expected ']' at the end of a table declaration (at end of document)."),
        ("encrypted = true", "APPS_FILE: encrypted is outside of an app's table; docs/apps.md shows one."),
        ("[fast]", "APPS_FILE, app fast: has neither an apns nor an fcm table."),
        (
            f'["my app".fcm]\n{FCM}',
            "APPS_FILE: 'my app' is not an app_id: letters, digits, dots, dashes and underscores, at most 155.",
        ),
        (
            f"[com.example.fast.fcm]\n{FCM}",
            (
                "APPS_FILE, app com: example is not a setting; known are apns, fcm, encrypted, presentation."
                ' Put an app_id with dots in quotes: ["com.example.app"].'
            ),
        ),
        (f"[fast.apns]\n{APNS}topics = 1", "APPS_FILE, app fast: apns.topics is not a setting; did you mean topic?"),
        (
            f"[fast.fcm]\n{FCM}xyzzy = 1",
            "APPS_FILE, app fast: fcm.xyzzy is not a setting; known are service_account_file, url, ca_file.",
        ),
        (
            '[fast.apns]\nkey_file = "key.p8"\n',
            "APPS_FILE, app fast: apns.key_id is not set; see docs/apps.md for what it means.",
        ),
        (
            f"[fast]\nencrypted = 1\n[fast.fcm]\n{FCM}",
            "APPS_FILE, app fast: encrypted: Input should be a valid boolean.",
        ),
        (
            f'[fast.fcm]\n{FCM}url = "http://fcm.example"',
            "APPS_FILE, app fast: fcm.url: must be an https:// address (http:// only on this machine).",
        ),
        ("[fast]\nfcm = 1", "APPS_FILE, app fast: fcm: Input should be a valid dictionary or instance of FcmSettings."),
    ],
)
def test_what_cannot_be_is_refused_with_one_sentence(file: Path, content: str, sentence: str) -> None:
    assert refused(file, content) == sentence


def test_a_file_that_is_missing_is_named_by_its_whole_path(file: Path) -> None:
    assert refused(file, '[fast.fcm]\nservice_account_file = "none.json"') == (
        f"APPS_FILE, app fast: fcm.service_account_file: names a file that does not exist: {file.parent}/none.json."
    )


def test_the_longest_app_id_has_the_form_of_the_api(file: Path) -> None:
    file.write_text(f"[{'a' * 155}.fcm]\n{FCM}")
    assert app_settings(file)

    assert f"{'a' * 156}' is not an app_id" in refused(file, f"[{'a' * 156}.fcm]\n{FCM}")


def write(file: Path, content: str) -> None:
    file.write_text(content)


def remove(file: Path) -> None:
    file.unlink()


async def allowed(ids: AppIds, *app_ids: str | None) -> list[bool]:
    return [await ids.allow(app_id) for app_id in app_ids]


async def test_without_a_file_a_phone_may_have_any_app() -> None:
    assert await allowed(AppIds(None), "any", None) == [True, True]


async def test_the_file_is_not_read_for_each_phone(file: Path) -> None:
    write(file, "[one]\n")
    ids = AppIds(file, every=timedelta(hours=1))
    write(file, "[two]\n")

    assert await allowed(ids, "one", "two") == [True, False]


async def test_the_apps_that_may_register_are_those_of_the_file_as_it_is(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(file, '[one.apns]\nkey_file = "not/here.p8"\n')
    ids = AppIds(file, every=timedelta(0))
    assert await allowed(ids, "one", "two", None) == [True, False, True]

    write(file, "[two]\n")
    assert await allowed(ids, "one", "two") == [False, True]

    write(file, "[half")
    assert await allowed(ids, "one", "two") == [False, True]
    assert capsys.readouterr().out.count("reading the apps file failed") == 1

    remove(file)
    assert await allowed(ids, "two", "two") == [True, True]
    assert capsys.readouterr().out.count("reading the apps file failed") == 1


def test_the_api_does_not_start_with_a_broken_file(file: Path) -> None:
    write(file, "[half")
    settings = service_settings({"DATABASE_URL": "postgresql://db/x", "APPS_FILE": str(file)})

    with pytest.raises(ConfigError, match="APPS_FILE is not TOML"):
        create_app(settings, AuthSettings(jwt_secret=SecretStr("x" * 32)))
