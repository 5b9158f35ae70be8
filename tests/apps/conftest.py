"""A stack of several apps: their file may be rewritten while the worker runs."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from push.registry import Rotation
from settings.apps_file import AppIds
from settings.environment import service_settings
from settings.presentations import PresentationFiles
from simulator import DEMO, App, Simulator
from tests.stack import Stack, StackPlace, make_app, make_stack, working

EVERY = timedelta(seconds=0.1)  # between looks at presentation files
ONE = App("one", "app.fastbell.one", "TEAMONE001", "KEYONE0001", "fastbell-one")
TWO = App("two", "app.fastbell.two", "TEAMTWO001", "KEYTWO0001", "fastbell-two")
ONE_TOO = App("one-too", "app.fastbell.one-too", ONE.team_id, ONE.key_id, "fastbell-one-too")
ONE_NEXT = App("one-next", ONE.topic, ONE.team_id, "KEYONE0002", "fastbell-one-next")


class AppsFile:
    """The file that APPS_FILE names, with the keys beside it."""

    def __init__(self, directory: Path, simulator: Simulator) -> None:
        self.path = directory / "apps.toml"
        self._simulator = simulator

    def write(self, **apps: str) -> None:
        """Rewrite it: the apps' tables by app_id, as `table` gives them."""
        replace_file(self.path, "\n".join(f"[{app_id}]\n{table}" for app_id, table in apps.items()))

    def table(self, app_id: str, app: App, *, encrypted: bool = False) -> str:
        """Describe an app, with a copy of its files."""
        settings = self._simulator.environments[app.name]
        replace_file(self.key_file(app_id), Path(settings["APNS_KEY_FILE"]).read_text())
        replace_file(self.service_account(app_id), Path(settings["FCM_SERVICE_ACCOUNT_FILE"]).read_text())
        lines = [f"encrypted = {json.dumps(encrypted)}"]
        for provider, names in {
            "apns": {
                "key_file": self.key_file(app_id).name,
                "key_id": settings["APNS_KEY_ID"],
                "team_id": settings["APNS_TEAM_ID"],
                "topic": settings["APNS_TOPIC"],
                "url": settings["APNS_URL"],
                "sandbox_url": settings["APNS_SANDBOX_URL"],
                "ca_file": settings["APNS_CA_FILE"],
            },
            "fcm": {
                "service_account_file": self.service_account(app_id).name,
                "url": settings["FCM_URL"],
                "ca_file": settings["FCM_CA_FILE"],
            },
        }.items():
            lines += [f"{provider}.{name} = {json.dumps(value)}" for name, value in names.items()]
        return "\n".join(lines)

    def presented(self, app_id: str, content: str) -> str:
        """Write an app's presentation file; gives the line of the app's table that names it."""
        replace_file(self.path.parent / f"{app_id}.toml", content)
        return f'presentation = "{app_id}.toml"\n'

    def key_file(self, app_id: str) -> Path:
        """Where an app's key for Apple is."""
        return self.path.parent / f"{app_id}.p8"

    def service_account(self, app_id: str) -> Path:
        """Where an app's key for Google is."""
        return self.path.parent / f"{app_id}.json"


def replace_file(path: Path, content: str) -> None:
    """Write a file whole: a rotation that reads it half written takes it for another one."""
    unfinished = path.with_suffix(".new")
    unfinished.write_text(content)
    unfinished.replace(path)


@pytest.fixture(scope="session")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    """The providers, with the demonstration app as the default one."""
    apps = (DEMO, ONE, TWO, ONE_TOO, ONE_NEXT)
    async with Simulator.start(run_dir=tmp_path_factory.mktemp("apps"), apps=apps) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def apps_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the apps' file is."""
    return tmp_path_factory.mktemp("apps-file")


@pytest.fixture
def apps_file(apps_directory: Path, simulator: Simulator) -> AppsFile:
    """The file, naming the apps `one` and `two`."""
    file = AppsFile(apps_directory, simulator)
    file.write(one=file.table("one", ONE), two=file.table("two", TWO))
    return file


@pytest.fixture(scope="session")
async def idle_stack(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator, apps_directory: Path
) -> AsyncIterator[Stack]:
    """The stack without a worker."""
    file = AppsFile(apps_directory, simulator)
    file.write(one=file.table("one", ONE))
    place = StackPlace(await new_database("apps"), temporal, "apps", simulator)
    app = make_app(place, APPS_FILE=str(file.path))
    async with make_stack(place, app) as stack:
        impatient = AppIds(file.path, every=timedelta(0))  # tests write the file and register the next moment
        presented = PresentationFiles(service_settings(place.environment(APPS_FILE=str(file.path))), every=EVERY)
        app.state.services = replace(app.state.services, app_ids=impatient, presentations=presented.presentations)
        following = asyncio.create_task(presented.follow())
        yield stack
        following.cancel()


@pytest.fixture
async def rotation(idle_stack: Stack, apps_file: AppsFile) -> AsyncIterator[Rotation]:
    """The senders of a worker that began with the file as it is before the test."""
    environment = idle_stack.place.environment(APPS_FILE=str(apps_file.path))
    async with working(idle_stack, environment, looks_every=EVERY) as rotation:
        yield rotation


@pytest.fixture
def stack(idle_stack: Stack, rotation: Rotation) -> Stack:
    """The stack, with a worker."""
    del rotation
    return idle_stack
