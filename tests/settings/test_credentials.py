"""Who sends for which app, from the settings; what cannot send is refused at the start with one sentence."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from domain.push import Provider
from settings.credentials import make_rotation
from settings.environment import ConfigError
from simulator import Simulator
from tests.credential_files import SERVICE_ACCOUNTS, spoil


@pytest.fixture
def environ(simulator: Simulator, tmp_path: Path) -> dict[str, str]:
    """The settings of a worker with the simulator's app as the default one, and another."""
    settings = {"DATABASE_URL": "postgresql://db/x", "APPS_FILE": str(tmp_path / "apps.toml"), **simulator.environment}
    for name, setting in (("key.p8", "APNS_KEY_FILE"), ("account.json", "FCM_SERVICE_ACCOUNT_FILE")):
        (tmp_path / name).write_text(Path(settings[setting]).read_text())
        settings[setting] = str(tmp_path / name)
    (tmp_path / "tea.p8").write_text(Path(settings["APNS_KEY_FILE"]).read_text())
    (tmp_path / "apps.toml").write_text('[tea.apns]\nkey_file = "tea.p8"\nkey_id = "K"\nteam_id = "T"\ntopic = "tea"\n')
    return settings


def refused(environ: Mapping[str, str]) -> str:
    with pytest.raises(ConfigError) as raised:
        make_rotation(environ)
    return str(raised.value)


async def test_the_environments_app_is_the_default_one_and_the_files_have_names(environ: dict[str, str]) -> None:
    rotation = make_rotation(environ)
    alone = make_rotation({name: value for name, value in environ.items() if name != "APPS_FILE"})

    assert rotation.apps.sender(Provider.APNS, "tea") is not rotation.apps.sender(Provider.APNS, None)
    assert alone.apps.sender(Provider.FCM, "tea") is alone.apps.sender(Provider.FCM, None)
    await rotation.close()
    await alone.close()


NO_PEM = "cannot be used: it holds no private key in PEM form without a password."


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("key.p8", "", f"APNS_KEY_FILE: {{file}} {NO_PEM}"),
        ("key.p8", "\0\udcff", f"APNS_KEY_FILE: {{file}} {NO_PEM}"),
        ("tea.p8", "-----BEGIN", f"APPS_FILE, app tea: {{file}} {NO_PEM}"),
        ("apps.toml", "[tea]", "APPS_FILE, app tea: has neither an apns nor an fcm table."),
        (
            "apps.toml",
            '[tea.apns]\nkey_file = "tea.p8"\nkey_id = "K"\nteam_id = "T"\ntopic = "te\\na"\n',
            "APPS_FILE, app tea: apns.topic: must be one word of ASCII characters, without blanks and line breaks.",
        ),
    ],
)
async def test_what_cannot_send_is_refused_at_the_start(
    environ: dict[str, str], tmp_path: Path, file: str, content: str, sentence: str
) -> None:
    (tmp_path / file).write_text(content, errors="surrogateescape")

    assert refused(environ) == sentence.format(file=tmp_path / file)


@pytest.mark.parametrize("content", SERVICE_ACCOUNTS, ids=lambda content: repr(content)[:40])
async def test_a_service_account_that_is_none_is_refused_at_the_start(
    environ: dict[str, str], tmp_path: Path, content: object
) -> None:
    file = tmp_path / "account.json"
    spoil(file, content)

    sentence = f"FCM_SERVICE_ACCOUNT_FILE: {file} cannot be used: {SERVICE_ACCOUNTS[content]}."
    assert refused(environ) == sentence


async def test_of_an_app_whose_settings_cannot_be_read_nothing_changes_and_of_the_others_everything(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The key file of one app is gone: the model of its table refuses it, as it would at the start."""
    more = '[two.apns]\nkey_file = "two.p8"\nkey_id = "K"\nteam_id = "T"\ntopic = "two"\n'
    apps = (tmp_path / "apps.toml").read_text() + more
    (tmp_path / "apps.toml").write_text(apps)
    (tmp_path / "two.p8").write_text((tmp_path / "tea.p8").read_text())
    rotation = make_rotation(environ)
    keys = [(Provider.APNS, "tea"), (Provider.APNS, "two"), (Provider.APNS, None), (Provider.FCM, None)]
    tea, two, apple, google = (rotation.apps.sender(*key) for key in keys)

    (tmp_path / "tea.p8").unlink()
    (tmp_path / "account.json").unlink()
    (tmp_path / "two.p8").write_text((tmp_path / "key.p8").read_text() + "\n")
    (tmp_path / "key.p8").write_text((tmp_path / "two.p8").read_text())
    for _ in range(3):
        await rotation.look()

    assert rotation.apps.sender(*keys[0]) is tea
    assert rotation.apps.sender(*keys[1]) is not two
    assert rotation.apps.sender(*keys[2]) is not apple
    assert rotation.apps.sender(*keys[3]) is google
    told = capsys.readouterr().out
    assert told.count("APPS_FILE, app tea: apns.key_file: names a file that does not exist") == 1
    assert told.count("FCM_SERVICE_ACCOUNT_FILE: names a file that does not exist") == 1
    await rotation.close()


def test_a_file_of_apps_that_is_not_there_is_refused(environ: dict[str, str]) -> None:
    assert refused(environ | {"APPS_FILE": "/none.toml"}) == "APPS_FILE: names a file that does not exist: /none.toml."
