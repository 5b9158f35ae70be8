"""All that the doctor looks at."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial

from commands.database import database_url
from commands.doctor_database import AREA as DATABASE
from commands.doctor_database import look_at_database
from commands.doctor_lines import Check, Level, Report, lines_of
from commands.doctor_phones import REMINDERS
from commands.doctor_providers import checks_of, look_at_files
from commands.doctor_settings import Found, look_at_settings
from commands.doctor_temporal import AREA as TEMPORAL
from commands.doctor_temporal import look_at_temporal, look_at_temporals_certificate, look_at_temporals_files
from commands.doctor_web import BEARERS, look_at_key_set
from commands.run_directory import read_settings, run_directory
from config import ANY_AUDIENCE, ConfigError, auth_settings
from temporal import connection


def settings_here(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the settings as a process would see them here: of the environment, or of the run in RUN_DIR."""
    given = {name: value for name, value in environ.items() if value}
    return given if "DATABASE_URL" in given else {**read_settings(run_directory(given)), **given}


async def examined(environ: Mapping[str, str], processes: Collection[str], *, offline: bool) -> Report:
    """Look at everything at once."""
    settings = look_at_settings(environ, processes)
    lines = settings.lines + look_at_temporals_files(environ)
    for key, account in settings.accounts.items():
        lines += look_at_files(key, account)
    try:
        lines += [] if offline else await lines_of(_checks(environ, processes, settings))
    finally:
        await asyncio.gather(*(sender.close() for sender in settings.senders.values()))
    lines += REMINDERS
    count = Counter(line.level for line in lines)
    failures = count[Level.FAILURE]
    return Report(not failures, count[Level.OK], count[Level.WARNING], failures, lines)


def _checks(environ: Mapping[str, str], processes: Collection[str], settings: Found) -> list[Check]:
    """Name the looks over the network, whatever of the settings can be read."""
    found = []
    if environ.get("DATABASE_URL") and _can_be_read(database_url, environ):
        found.append(Check(DATABASE, "database", partial(look_at_database, environ["DATABASE_URL"])))
    if _can_be_read(connection, environ):
        found.append(Check(TEMPORAL, "Temporal", partial(look_at_temporal, environ, settings.providers)))
        found.append(Check(TEMPORAL, "Temporal's certificate", partial(look_at_temporals_certificate, environ)))
    key_set = environ.get("AUTH_JWKS_URL")
    alone = {"AUTH_JWKS_URL": key_set or "", "AUTH_AUDIENCE": ANY_AUDIENCE}
    if "api" in processes and key_set and _can_be_read(auth_settings, alone):
        found.append(Check(BEARERS, "key set", partial(look_at_key_set, key_set)))
    for key, sender in settings.senders.items():
        found += checks_of(key, settings.accounts[key], sender)
    return found


def _can_be_read(read: Callable[[Mapping[str, str]], object], environ: Mapping[str, str]) -> bool:
    try:
        read(environ)
    except ConfigError:  # told with the settings
        return False
    return True
