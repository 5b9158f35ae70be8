"""The presentation file of each app: read at the start, and taken over while the process runs when it changes."""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from domain.presentation import Presentation, Presentations
from domain.presentation_file import LARGEST_FILE, SHIPPED, UnusablePresentation, presentation
from settings.apps_file import presentation_files
from settings.environment import ConfigError, ServiceSettings

log = structlog.get_logger()

EVERY = timedelta(seconds=5)
AppId = str | None  # None: the default app


@dataclass(frozen=True, slots=True)
class _Read:
    content: bytes
    presentation: Presentation


class PresentationFiles:
    """Keeps `presentations` as the files are. A file that cannot be used is logged once; what it had before stays."""

    def __init__(self, settings: ServiceSettings, *, every: timedelta = EVERY) -> None:
        """Read all files; raises ConfigError."""
        self._default_file, self._apps_file = settings.presentation_file, settings.apps_file
        self._every = every.total_seconds()
        self._logged: dict[AppId, str] = {}  # the trouble of each app that is in the log
        self._read: dict[AppId, _Read] = {}
        for app_id, file in self._files().items():
            self._read[app_id] = _Read(b"", SHIPPED) if file is None else _read(app_id, file, None)
        self.presentations = Presentations(*self._shown())

    async def follow(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 -- else the next change would go unseen
                log.warning("checking the presentations failed", error=type(error).__name__)

    async def look(self) -> None:
        """Look for changes once."""
        try:
            files = await asyncio.to_thread(self._files)
        except ConfigError as error:
            self._report(None, error)
            return
        before, self._read = self._read, {}
        for app_id, file in files.items():
            kept = before.get(app_id)
            self._read[app_id] = await asyncio.to_thread(self._current, app_id, file, kept)
        self.presentations.replace(*self._shown())

    def _files(self) -> dict[AppId, Path | None]:
        files: dict[AppId, Path | None] = {None: self._default_file}
        files.update(presentation_files(self._apps_file) if self._apps_file else {})
        return files

    def _shown(self) -> tuple[Presentation, Mapping[str, Presentation] | None]:
        named = {app_id: read.presentation for app_id, read in self._read.items() if app_id is not None}
        return self._read[None].presentation, named if self._apps_file else None

    def _current(self, app_id: AppId, file: Path | None, kept: _Read | None) -> _Read:
        """Give an app's presentation as its file is now, or as it was where the file cannot be used."""
        try:
            read = _Read(b"", SHIPPED) if file is None else _read(app_id, file, kept)
        except ConfigError as error:
            self._report(app_id, error)
            return kept or _Read(b"", SHIPPED)
        self._logged.pop(app_id, None)
        if kept is not None and read.content != kept.content:
            version = hashlib.sha256(read.content).hexdigest()[:12]
            log.info("presentation renewed", app_id=app_id, version=version)
        return read

    def _report(self, app_id: AppId, error: ConfigError) -> None:
        if self._logged.get(app_id) != str(error):
            self._logged[app_id] = str(error)
            log.error("presentation not renewed", app_id=app_id, why=str(error))


def each_file(settings: ServiceSettings) -> Iterator[tuple[AppId, ConfigError | None]]:
    """Check the file of each app that has one, one after the other; raises ConfigError where no app can be named."""
    files = {None: settings.presentation_file} | (presentation_files(settings.apps_file) if settings.apps_file else {})
    for app_id, file in files.items():
        try:
            if file is not None:
                _read(app_id, file, None)
                yield app_id, None
        except ConfigError as error:
            yield app_id, error


def presentation_in(file: Path) -> Presentation:
    """Read any presentation file; raises ConfigError with one sentence that names the file and the key."""
    try:
        return presentation(_content(file))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from None
    except UnusablePresentation as error:
        raise ConfigError(f"{file}: {error}{_stop(error)}") from None


def _read(app_id: AppId, file: Path, kept: _Read | None) -> _Read:
    named = "PRESENTATION_FILE" if app_id is None else f"APPS_FILE, app {app_id}, presentation"
    try:
        content = _content(file)
        return kept if kept is not None and kept.content == content else _Read(content, presentation(content))
    except OSError as error:
        raise ConfigError(f"{named}: {file} cannot be read: {error.strerror}.") from None
    except UnusablePresentation as error:
        raise ConfigError(f"{named}: {file}: {error}{_stop(error)}") from None


def _content(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(LARGEST_FILE + 1)


def _stop(error: UnusablePresentation) -> str:
    return "" if str(error).endswith("?") else "."
