"""All that the doctor looks at."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial

from commands.context import database_url, read_settings, run_directory
from commands.doctor.providers import checks_of, look_at_files
from commands.doctor.report import Check, Level, Report, ReportLine, lines_of
from commands.doctor.servers import (
    BEARERS,
    DATABASE,
    TEMPORAL,
    look_at_database,
    look_at_key_set,
    look_at_temporal,
    look_at_temporals_certificate,
    look_at_temporals_files,
)
from commands.doctor.settings import FoundSettings, look_at_settings
from dispatch.client import connection
from settings.environment import ANY_AUDIENCE, ConfigError, auth_settings

_APPLE = "https://developer.apple.com/documentation/"

_ANDROID = "https://developer.android.com/develop/ui/views/notifications/notification-permission"


REMINDERS = (
    ReportLine(
        "phones",
        Level.REMINDER,
        "iOS: the app has the capability Push Notifications",
        "In Xcode: Signing & Capabilities, + Capability; the App ID has it, too.",
        f"{_APPLE}usernotifications/registering-your-app-with-apns",
    ),
    ReportLine(
        "phones",
        Level.REMINDER,
        "iOS: the app has the capability Background Modes, Remote notifications",
        "In Xcode: Signing & Capabilities, + Capability, Background Modes.",
        f"{_APPLE}usernotifications/pushing-background-updates-to-your-app",
    ),
    ReportLine(
        "phones",
        Level.REMINDER,
        "Android 13 and newer: the app asks for the permission to notify (POST_NOTIFICATIONS)",
        "Try both answers, and the way back through the system's settings.",
        _ANDROID,
    ),
    ReportLine(
        "phones",
        Level.REMINDER,
        "Android: the app's google-services.json is of the project that the service account is of",
        "Compare its project_id with the one in the service account's file.",
        "https://firebase.google.com/docs/cloud-messaging/android/client",
    ),
    ReportLine(
        "phones",
        Level.REMINDER,
        "a reminder was seen on a real iPhone and on a real Android phone, with the screen locked",
        "Simulators do not behave like production push.",
        f"{_APPLE}usernotifications/testing-notifications-using-the-push-notification-console",
    ),
)


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


def _checks(environ: Mapping[str, str], processes: Collection[str], settings: FoundSettings) -> list[Check]:
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
