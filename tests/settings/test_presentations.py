"""Presentation files: refused at the start with one sentence, followed while the process runs."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from domain.kinds import Kind
from domain.presentation_file import SHIPPED
from settings.environment import ConfigError, service_settings
from settings.presentations import PresentationFiles, _Found
from tests.logs import own_logs

DATABASE = {"DATABASE_URL": "postgresql://127.0.0.1/none"}
TOO_LONG = "it is not TOML: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits."
FCM = 'fcm.service_account_file = "missing.json"'


def channel(files: PresentationFiles, app_id: str | None = None) -> str | None:
    """Read one thing of a presentation."""
    return files.presentations.of(app_id).looks[Kind.REMINDER].channel


def opened(environment: dict[str, str]) -> PresentationFiles:
    """Read the files that an environment names."""
    return PresentationFiles(service_settings(environment))


def write(file: Path, content: str) -> None:
    """Write a file, beside a loop that waits for it."""
    file.write_text(content)


@pytest.fixture
def default(tmp_path: Path) -> Path:
    """The default app's file."""
    file = tmp_path / "default.toml"
    file.write_text("[reminder]\nchannel = 'one'")
    return file


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    """A file of apps: one with a presentation, one without."""
    (tmp_path / "tea.toml").write_text("[reminder]\nchannel = 'tea'")
    file = tmp_path / "apps.toml"
    file.write_text(f'[tea]\npresentation = "tea.toml"\n{FCM}\n[plain]\n{FCM}')
    return file


def test_without_files_every_app_looks_as_shipped() -> None:
    files = opened(DATABASE)

    assert files.presentations.of(None) is SHIPPED
    assert files.presentations.of("any") is SHIPPED


def test_each_app_has_its_own_and_one_without_is_as_shipped(default: Path, apps: Path) -> None:
    files = opened(DATABASE | {"PRESENTATION_FILE": str(default), "APPS_FILE": str(apps)})

    assert [channel(files, app_id) for app_id in (None, "tea", "plain")] == ["one", "tea", "reminders"]


def test_without_an_apps_file_all_phones_belong_to_the_default_app(default: Path) -> None:
    files = opened(DATABASE | {"PRESENTATION_FILE": str(default)})

    assert channel(files, "com.example.any") == "one"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[reminder]\nchanel = 'x'", "reminder.chanel is not a key; did you mean channel?"),
        (f"[reminder]\nrelevance = {'1' * 5000}", TOO_LONG),
        ("[half", "it is not TOML: Expected ']' at the end of a table declaration (at end of document)."),
    ],
)
def test_a_wrong_file_stops_the_start_with_one_sentence(default: Path, apps: Path, content: str, sentence: str) -> None:
    default.write_text(content)
    with pytest.raises(ConfigError) as refused:
        opened(DATABASE | {"PRESENTATION_FILE": str(default)})
    assert str(refused.value) == f"PRESENTATION_FILE: {default}: {sentence}"

    (apps.parent / "tea.toml").write_text(content)
    with pytest.raises(ConfigError) as refused:
        opened(DATABASE | {"APPS_FILE": str(apps)})
    assert str(refused.value) == f"APPS_FILE, app tea, presentation: {apps.parent / 'tea.toml'}: {sentence}"


def test_a_missing_file_stops_the_start(tmp_path: Path, apps: Path) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigError, match=r"^PRESENTATION_FILE: names a file that does not exist"):
        opened(DATABASE | {"PRESENTATION_FILE": str(missing)})

    (apps.parent / "tea.toml").unlink()
    with pytest.raises(
        ConfigError, match=r"^APPS_FILE, app tea, presentation: .*tea.toml cannot be read: No such file"
    ):
        opened(DATABASE | {"APPS_FILE": str(apps)})

    for name in ("7", '"a\\u0000"'):
        apps.write_text(f"[tea]\npresentation = {name}\n{FCM}")
        with pytest.raises(ConfigError, match=r"^APPS_FILE, app tea: presentation must be the name of a file\.$"):
            opened(DATABASE | {"APPS_FILE": str(apps)})
    apps.write_text(f"[tea]\n{FCM}\nnumber = {'1' * 5000}")
    with pytest.raises(ConfigError, match=r"^APPS_FILE is not TOML: Exceeds the limit"):
        opened(DATABASE | {"APPS_FILE": str(apps)})


async def test_a_changed_file_is_taken_over_and_a_broken_one_keeps_the_old(default: Path, apps: Path) -> None:
    files = opened(DATABASE | {"PRESENTATION_FILE": str(default), "APPS_FILE": str(apps)})
    in_use, tea = files.presentations, apps.parent / "tea.toml"

    with own_logs() as logs:
        await files.look()
        write(default, "[reminder]\nchannel = 'two'")
        write(tea, "[reminder]\nchannel = 7")
        for _ in range(3):
            await files.look()
    assert in_use is files.presentations
    assert [channel(files, app_id) for app_id in (None, "tea")] == ["two", "tea"]
    [renewed, kept] = logs
    assert (renewed["event"], renewed["app_id"]) == ("presentation renewed", None)
    why = f"APPS_FILE, app tea, presentation: {tea}: reminder.channel must be a text in quotes."
    assert (kept["event"], kept["app_id"], kept["why"]) == ("presentation not renewed", "tea", why)

    tea.unlink()
    await files.look()
    assert channel(files, "tea") == "tea"
    write(tea, "[reminder]\nchannel = 'three'")
    await files.look()
    assert channel(files, "tea") == "three"


class WrittenMeanwhile(PresentationFiles):
    """Reads a file whose writer goes on after that."""

    goes_on: Callable[[], None] | None = None

    def _look_for_all(self) -> dict[str | None, _Found]:
        found = super()._look_for_all()
        if self.goes_on is not None:
            self.goes_on()
            self.goes_on = None
        return found


async def test_half_a_file_is_not_taken_over_though_it_is_valid(default: Path, apps: Path) -> None:
    files = WrittenMeanwhile(service_settings(DATABASE | {"PRESENTATION_FILE": str(default), "APPS_FILE": str(apps)}))

    write(default, "")
    write(apps.parent / "tea.toml", "[reminder]\nchannel = 'green'")
    files.goes_on = partial(write, default, "[reminder]\nchannel = 'two'")
    await files.look()
    assert [channel(files, app_id) for app_id in (None, "tea")] == ["one", "green"]
    await files.look()
    assert channel(files) == "two"

    write(apps, f"[plain]\n{FCM}")
    files.goes_on = partial(write, apps, f'[tea]\npresentation = "tea.toml"\n{FCM}\n[plain]\n{FCM}')
    await files.look()
    assert channel(files, "tea") == "green"


async def test_a_directory_that_a_link_swaps_is_taken_over_as_in_kubernetes(tmp_path: Path) -> None:
    file, link = tmp_path / "mounted" / "presentation.toml", tmp_path / "mounted"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / file.name, f"[reminder]\nchannel = '{name}'")
    link.symlink_to("one")
    files = opened(DATABASE | {"PRESENTATION_FILE": str(file)})

    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(link)
    await files.look()

    assert channel(files) == "two"


async def test_a_pipe_without_a_writer_holds_up_nobody(default: Path, apps: Path) -> None:
    files = opened(DATABASE | {"PRESENTATION_FILE": str(default), "APPS_FILE": str(apps)})
    tea = apps.parent / "tea.toml"
    tea.unlink()
    os.mkfifo(tea)
    write(default, "[reminder]\nchannel = 'two'")

    await files.look()

    assert [channel(files, app_id) for app_id in (None, "tea")] == ["two", "tea"]
    with pytest.raises(ConfigError, match=r"tea\.toml cannot be read: it is a pipe\.$"):
        opened(DATABASE | {"APPS_FILE": str(apps)})


async def test_apps_come_and_go_with_the_apps_file(apps: Path) -> None:
    files = opened(DATABASE | {"APPS_FILE": str(apps)})

    write(apps, f'[tea]\n{FCM}\n[late]\npresentation = "tea.toml"\n{FCM}')
    await files.look()
    assert [channel(files, app_id) for app_id in ("tea", "late")] == ["reminders", "tea"]
    write(apps, "[half")
    await files.look()
    assert [channel(files, app_id) for app_id in ("tea", "late")] == ["reminders", "tea"]
