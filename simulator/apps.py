"""The apps that the providers know: a topic at Apple, a project at Google, and who signs for each."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True)
class App:
    """One app. Apps of one team may share its key: give them the same `team_id` and `key_id`."""

    name: str
    topic: str
    team_id: str
    key_id: str
    project: str

    @property
    def client_email(self) -> str:
        """The service account that sends for the project."""
        return f"simulator@{self.project}.iam.gserviceaccount.com"


DEMO = App("demo", "app.fastbell.demo", "FBSIMTEAM1", "FBSIMKEY01", "fastbell-demo")


def apps_named(names: Iterable[str]) -> tuple[App, ...]:
    """List the demonstration app, then one app per name, each of a team of its own; raises ValueError.

    The app `tea` has the topic `app.fastbell.tea` and the project `fastbell-tea`.
    """
    named = [DEMO]
    for number, name in enumerate(names, 2):
        if not _NAME.fullmatch(name) or any(name == app.name for app in named):
            raise ValueError("an app's name is made of a-z, 0-9 and dashes, and is there once")
        named.append(
            App(name, f"app.fastbell.{name}", f"FBSIMTEAM{number}", f"FBSIMKEY{number:02}", f"fastbell-{name}")
        )
    return tuple(named)
