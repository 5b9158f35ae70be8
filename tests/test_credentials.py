"""Who sends for which app, from the settings; what cannot send is refused at the start with one sentence."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from config import ConfigError
from credentials import make_rotation
from domain.push import Provider
from simulator import Simulator


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


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("key.p8", "", "APNS_KEY_FILE: {file} cannot be used: ValueError."),
        ("account.json", "{}", "FCM_SERVICE_ACCOUNT_FILE: {file} cannot be used: ValueError."),
        ("account.json", "[", "FCM_SERVICE_ACCOUNT_FILE: {file} cannot be used: JSONDecodeError."),
        ("tea.p8", "-----BEGIN", "APPS_FILE, app tea: {file} cannot be used: ValueError."),
        ("apps.toml", "[tea]", "APPS_FILE, app tea: has neither an apns nor an fcm table."),
    ],
)
async def test_what_cannot_send_is_refused_at_the_start(
    environ: dict[str, str], tmp_path: Path, file: str, content: str, sentence: str
) -> None:
    (tmp_path / file).write_text(content)

    assert refused(environ) == sentence.format(file=tmp_path / file)


def test_a_file_of_apps_that_is_not_there_is_refused(environ: dict[str, str]) -> None:
    assert refused(environ | {"APPS_FILE": "/none.toml"}) == "APPS_FILE: names a file that does not exist: /none.toml."
