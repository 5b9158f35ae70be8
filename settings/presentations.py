"""The presentation file of each app: read at the start, and taken over while the process runs when it changes."""

import asyncio
import hashlib
import stat
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
SETTLES = timedelta(seconds=0.2)  # a file that changes within it is still being written
AppId = str | None  # None: the default app


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is of one app."""

    file: Path | None = None  # None: it has none
    content: bytes = b""
    trouble: str | None = None  # why the file cannot be read


class PresentationFiles:
    """Keeps `presentations` as the files are. A file that cannot be used is logged once; what it had before stays."""

    def __init__(self, settings: ServiceSettings, *, every: timedelta = EVERY, settles: timedelta = SETTLES) -> None:
        """Read all files; raises ConfigError."""
        self._default_file, self._apps_file = settings.presentation_file, settings.apps_file
        self._every, self._settles = every.total_seconds(), settles.total_seconds()
        self._logged: str | None = None  # the trouble with the file of apps that is in the log
        self._found = self._look_for_all()
        self._read = {app_id: _read(app_id, found) for app_id, found in self._found.items()}
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
        """Look for changes once. A file that is being written waits for the next look: half of it may be valid."""
        try:
            seen = await asyncio.to_thread(self._look_for_all)
            if seen != self._found:
                await asyncio.sleep(self._settles)
            found = await asyncio.to_thread(self._look_for_all) if seen != self._found else seen
        except ConfigError as error:
            if self._logged != str(error):
                self._logged = str(error)
                log.error("presentation not renewed", app_id=None, why=self._logged)  # noqa: TRY400 (the sentence says it)
            return
        self._logged = None
        if found == self._found or found.keys() != seen.keys():
            return
        settled = {app_id: each for app_id, each in found.items() if each == seen[app_id]}
        found = {app_id: settled.get(app_id, self._found.get(app_id, each)) for app_id, each in found.items()}
        self._read = await asyncio.to_thread(self._renewed, found)
        self._found = found
        self.presentations.replace(*self._shown())

    def _look_for_all(self) -> dict[AppId, _Found]:
        """Read the file of each app; raises ConfigError where no app can be named."""
        return {app_id: _find(file) for app_id, file in _files(self._default_file, self._apps_file).items()}

    def _shown(self) -> tuple[Presentation, Mapping[str, Presentation] | None]:
        named = {app_id: presentation for app_id, presentation in self._read.items() if app_id is not None}
        return self._read[None], named if self._apps_file else None

    def _renewed(self, found: Mapping[AppId, _Found]) -> dict[AppId, Presentation]:
        """Give each app's presentation as its file is now, or as it was where the file cannot be used."""
        return {app_id: self._current(app_id, each) for app_id, each in found.items()}

    def _current(self, app_id: AppId, found: _Found) -> Presentation:
        kept = self._read.get(app_id)
        if kept is not None and found == self._found.get(app_id):
            return kept
        try:
            read = _read(app_id, found)
        except ConfigError as error:
            log.error("presentation not renewed", app_id=app_id, why=str(error))  # noqa: TRY400 (the sentence says it)
            return kept or SHIPPED
        if kept is not None:
            version = hashlib.sha256(found.content).hexdigest()[:12]
            log.info("presentation renewed", app_id=app_id, version=version)
        return read


def each_file(settings: ServiceSettings) -> Iterator[tuple[AppId, ConfigError | None]]:
    """Check the file of each app that has one, one after the other; raises ConfigError where no app can be named."""
    for app_id, file in _files(settings.presentation_file, settings.apps_file).items():
        try:
            if file is not None:
                _read(app_id, _find(file))
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


def _files(default: Path | None, apps: Path | None) -> dict[AppId, Path | None]:
    files: dict[AppId, Path | None] = {None: default}
    files.update(presentation_files(apps) if apps else {})
    return files


def _find(file: Path | None) -> _Found:
    if file is None:
        return _Found()
    try:
        return _Found(file, _content(file))
    except OSError as error:
        return _Found(file, trouble=f"cannot be read: {error.strerror}.")


def _read(app_id: AppId, found: _Found) -> Presentation:
    if found.file is None:
        return SHIPPED
    named = "PRESENTATION_FILE" if app_id is None else f"APPS_FILE, app {app_id}, presentation"
    if found.trouble is not None:
        raise ConfigError(f"{named}: {found.file} {found.trouble}")
    try:
        return presentation(found.content)
    except UnusablePresentation as error:
        raise ConfigError(f"{named}: {found.file}: {error}{_stop(error)}") from None


def _content(file: Path) -> bytes:
    if stat.S_ISFIFO(file.stat().st_mode):
        raise OSError(None, "it is a pipe")  # opening it would wait for a writer
    with file.open("rb") as opened:
        return opened.read(LARGEST_FILE + 1)


def _stop(error: UnusablePresentation) -> str:
    return "" if str(error).endswith("?") else "."
