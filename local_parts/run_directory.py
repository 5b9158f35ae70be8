"""What a run keeps in its directory: its lock, its secret, its settings."""

import fcntl
import os
import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from config import ConfigError


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the directory for this run alone; raises ConfigError while another run lives."""
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
    """Read the secret that signs this directory's bearer tokens; made once."""
    path = run_dir / "jwt-secret"
    if not path.is_file():
        _write_private(path, secrets.token_urlsafe(48))
    return path.read_text()


def write_settings(run_dir: Path, settings: Mapping[str, str]) -> None:
    """Write `run.env`: lines that a shell, and `cli.py`, can read."""
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(settings.items())]
    _write_private(run_dir / "run.env", "".join(lines))


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
