"""The file that APPS_FILE names: the apps and their credentials. docs/apps.md describes its form."""

import asyncio
import difflib
import re
import time
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError

from domain.push import APP_ID, LONGEST_APP_ID
from settings.environment import ApnsSettings, AppSettings, ConfigError, FcmSettings

log = structlog.get_logger()

EVERY = timedelta(seconds=2)

_PATHS = {"key_file", "service_account_file", "ca_file", "presentation"}
_TABLES: dict[str, type[BaseModel]] = {"apns": ApnsSettings, "fcm": FcmSettings}


def app_settings(file: Path) -> dict[str, AppSettings]:
    """Read every app; raises ConfigError."""
    return {app_id: _app(file.parent, app_id, table) for app_id, table in _tables(_content(file)).items()}


def each_app(file: Path) -> Iterator[tuple[str, AppSettings | ConfigError]]:
    """Read every app, or its error; raises ConfigError where the file as a whole cannot be read."""
    for app_id, table in _tables(_content(file)).items():
        try:
            yield app_id, _app(file.parent, app_id, table)
        except ConfigError as error:
            yield app_id, error


def presentation_files(file: Path) -> dict[str, Path | None]:
    """Name each app's presentation file, None where it has none; reads nothing else of an app. Raises ConfigError."""
    named: dict[str, Path | None] = {}
    for app_id, table in _tables(_content(file)).items():
        name = table.get("presentation")
        if name is not None and (not isinstance(name, str) or "\0" in name):
            raise ConfigError(f"APPS_FILE, app {app_id}: presentation must be the name of a file.")
        named[app_id] = None if name is None else file.parent / name
    return named


class AppIds:
    """The apps for which a phone may register, read again when the file changes. Reads no keys."""

    def __init__(self, file: Path | None, *, every: timedelta = EVERY) -> None:
        """Read the file, if there is one; raises ConfigError."""
        self._file = file
        self._every = every.total_seconds()
        self._look_at = time.monotonic() + self._every
        self._logged: str | None = None  # the error that is in the log
        self._content = b"" if file is None else _content(file)
        self._known = frozenset(_tables(self._content) if file else ())

    async def allow(self, app_id: str | None) -> bool:
        """Tell whether a phone may register for this app. Without a file, or without an app, it may."""
        if self._file is None or app_id is None:
            return True
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + self._every
            await self._look(self._file)
        return app_id in self._known

    async def _look(self, file: Path) -> None:
        try:
            content = await asyncio.to_thread(_content, file)
            if content != self._content:
                self._content = content  # a broken file is not parsed again
                self._known = frozenset(_tables(content))
            self._logged = None
        except ConfigError as error:
            if self._logged != str(error):
                self._logged = str(error)
                log.error("reading the apps file failed", why=self._logged)  # noqa: TRY400 (the sentence says it)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"APPS_FILE cannot be read: {error.strerror}.") from None


def _tables(content: bytes) -> Mapping[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(content.decode("utf-8-sig"))  # some editors begin a file with a mark
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise ConfigError(f"APPS_FILE is not TOML: {error}.") from None
    if not tables:
        raise ConfigError("APPS_FILE names no app; docs/apps.md shows one.")
    for app_id, table in tables.items():
        if not re.fullmatch(APP_ID, app_id) or len(app_id) > LONGEST_APP_ID:
            raise ConfigError(
                f"APPS_FILE: {app_id!r} is not an app_id: letters, digits, dots, dashes and underscores,"
                f" at most {LONGEST_APP_ID}."
            )
        if not isinstance(table, dict):
            raise ConfigError(f"APPS_FILE: {app_id} is outside of an app's table; docs/apps.md shows one.")
    return tables


def _app(directory: Path, app_id: str, table: dict[str, Any]) -> AppSettings:
    try:
        return AppSettings.model_validate(_with_paths_from(directory, table))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = [str(part) for part in first["loc"]]
        raise ConfigError(f"APPS_FILE, app {app_id}: {_sentence(path, first['type'], first['msg'])}") from None


def _with_paths_from(directory: Path, table: dict[str, Any]) -> dict[str, Any]:
    """Make paths absolute: a relative one starts at the file's directory."""
    absolute: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            absolute[name] = _with_paths_from(directory, value)
        else:
            absolute[name] = directory / value if name in _PATHS and isinstance(value, str) else value
    return absolute


def _sentence(path: list[str], kind: str, message: str) -> str:
    name = ".".join(path)
    if kind == "missing":
        return f"{name} is not set; see docs/apps.md for what it means."
    if kind == "extra_forbidden":
        known = (_TABLES[path[0]] if len(path) > 1 else AppSettings).model_fields
        near = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
        quotes = "" if len(path) > 1 else ' Put an app_id with dots in quotes: ["com.example.app"].'
        return f"{name} is not a setting; {hint}{quotes}"
    problem = message.removeprefix("Value error, ")
    return f"{name}: {problem}." if name else f"{problem}."
