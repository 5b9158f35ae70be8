"""Where the simulator listens, where it keeps its files, and how it behaves."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

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


DEFAULT_PORT = 8900


@dataclass(frozen=True, slots=True)
class Ports:
    """One port per listener, all on 127.0.0.1; 0 lets the system choose."""

    admin: int
    apns: int
    apns_sandbox: int
    fcm: int  # FCM and OAuth share it

    @classmethod
    def following(cls, port: int) -> "Ports":
        """Put the page on `port` and the providers on the three after it; the system chooses all for 0."""
        if port == 0:
            return cls(admin=0, apns=0, apns_sandbox=0, fcm=0)
        return cls(admin=port, apns=port + 1, apns_sandbox=port + 2, fcm=port + 3)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Behaviour of the real providers that a test may change. The defaults are faithful."""

    apns_stream_limit: int = 1000  # after the first accepted push; before it the limit is 1
    stream_limit_after_rejection: int | None = 1  # after a 4xx, until the next accepted push; None: no drop
    receive_window: int = 16 * 1024 * 1024  # bytes in flight from a client per connection; at least 65 535
    access_token_lifetime: timedelta = timedelta(hours=1)


FAITHFUL = Behaviour()


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What `python -m simulator` reads from the environment."""

    run_dir: Path
    ports: Ports
    apps: tuple[App, ...] = (DEMO,)

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "ProcessSettings":
        """RUN_DIR, SIMULATOR_PORT, and SIMULATOR_{APNS,APNS_SANDBOX,FCM}_PORT to place one listener elsewhere.

        SIMULATOR_APPS names apps beside the demonstration's, separated by commas.
        """
        following = Ports.following(_port(environ, "SIMULATOR_PORT", DEFAULT_PORT))
        ports = Ports(
            admin=following.admin,
            apns=_port(environ, "SIMULATOR_APNS_PORT", following.apns),
            apns_sandbox=_port(environ, "SIMULATOR_APNS_SANDBOX_PORT", following.apns_sandbox),
            fcm=_port(environ, "SIMULATOR_FCM_PORT", following.fcm),
        )
        return cls(run_dir=Path(environ.get("RUN_DIR") or ".run"), ports=ports, apps=_apps(environ))


def _apps(environ: Mapping[str, str]) -> tuple[App, ...]:
    names = [name.strip() for name in environ.get("SIMULATOR_APPS", "").split(",")]
    try:
        return apps_named(name for name in names if name)
    except ValueError as error:
        raise SystemExit(f"SIMULATOR_APPS cannot be used: {error}.") from None


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or int(text) > 65535:
        raise SystemExit(f"{name} must be a port number from 0 to 65535.")
    return int(text)
