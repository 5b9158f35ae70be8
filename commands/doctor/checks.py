"""All that the doctor checks: every section of the settings, every app and its files, and what the network needs."""

import asyncio
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from commands.context import database_url, read_settings, run_directory
from commands.doctor.providers import app_name, check_files, checks_of
from commands.doctor.report import Area, Check, Finding, Level, Report, ReportLine, lines_of
from commands.doctor.servers import (
    BEARERS,
    DATABASE,
    TEMPORAL,
    check_database,
    check_key_set,
    check_temporal,
    check_temporals_certificate,
    check_temporals_files,
)
from dispatch.client import connection
from domain.push import Provider
from push.apns.sender import ApnsAccount
from push.http2.proxy import DIRECT
from push.registry import Account, Key, UnusableFile, sender_of
from push.sender import Sender
from settings.apps_file import each_app
from settings.credentials import accounts_of, proxies_of
from settings.environment import (
    ANY_AUDIENCE,
    AppSettings,
    ConfigError,
    apns_settings,
    auth_settings,
    fcm_settings,
    limit_settings,
    limiter_settings,
    proxy_settings,
    retention_settings,
    service_settings,
    tracing_settings,
)
from settings.presentations import each_file

AREA = Area("settings")
_Read = Callable[[Mapping[str, str]], object]
_SECTIONS: Mapping[str, Mapping[str, _Read]] = {
    "api": {
        "service": service_settings,
        "Temporal": connection,
        "API limits": limit_settings,
        "bearer tokens": auth_settings,
        "traces": tracing_settings,
    },
    "worker": {
        "service": service_settings,
        "Temporal": connection,
        "traces": tracing_settings,
        "proxy": proxy_settings,
        "route limiters": limiter_settings,
        "retention": retention_settings,
    },
}
_APPLE = "https://developer.apple.com/documentation/"
_ANDROID = "https://developer.android.com/develop/ui/views/notifications/notification-permission"
_GOOGLE = "https://firebase.google.com/docs/cloud-messaging/android/client"
_STEPS = (  # that no command can check
    (
        "iOS: the app has the capability Push Notifications",
        "In Xcode: Signing & Capabilities, + Capability. The App ID needs it, too.",
        f"{_APPLE}usernotifications/registering-your-app-with-apns",
    ),
    (
        "iOS: the app has the capability Background Modes, Remote notifications",
        "In Xcode: Signing & Capabilities, + Capability, Background Modes.",
        f"{_APPLE}usernotifications/pushing-background-updates-to-your-app",
    ),
    (
        "Android 13 and newer: the app asks for the permission to notify (POST_NOTIFICATIONS)",
        "Try both answers, and the way back through the system's settings.",
        _ANDROID,
    ),
    (
        "Android: google-services.json and the service account belong to the same project",
        "Compare project_id in both files.",
        _GOOGLE,
    ),
    (
        "a reminder was seen on a real iPhone and on a real Android phone, with the screen locked",
        "Simulators do not behave like production push.",
        f"{_APPLE}usernotifications/testing-notifications-using-the-push-notification-console",
    ),
)
REMINDERS = tuple(ReportLine("phones", Level.REMINDER, *step) for step in _STEPS)


@dataclass(frozen=True, slots=True)
class FoundSettings:
    """The settings, as far as they can be read."""

    lines: list[ReportLine] = field(default_factory=list)
    accounts: dict[Key, Account] = field(default_factory=dict)
    senders: dict[Key, Sender] = field(default_factory=dict)  # of accounts whose files can be used; to be closed
    providers: set[Provider] = field(default_factory=set)  # that workers send to


def settings_here(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the settings that a process would have: those of the environment, or of the run in RUN_DIR."""
    given = {name: value for name, value in environ.items() if value}
    return given if "DATABASE_URL" in given else {**read_settings(run_directory(given)), **given}


async def examined(environ: Mapping[str, str], processes: Collection[str], *, offline: bool) -> Report:
    """Run all checks at once."""
    settings = check_settings(environ, processes)
    lines = settings.lines + check_temporals_files(environ)
    for key, account in settings.accounts.items():
        lines += check_files(key, account)
    try:
        lines += [] if offline else await lines_of(_checks(environ, processes, settings))
    finally:
        await asyncio.gather(*(sender.close() for sender in settings.senders.values()))
    lines += REMINDERS
    count = Counter(line.level for line in lines)
    failures = count[Level.FAILURE]
    return Report(not failures, count[Level.OK], count[Level.WARNING], failures, lines)


def _checks(environ: Mapping[str, str], processes: Collection[str], settings: FoundSettings) -> list[Check]:
    """List the checks over the network, as far as the settings can be read."""
    checks = []
    if environ.get("DATABASE_URL") and _can_be_read(database_url, environ):
        checks.append(Check(DATABASE, "database", partial(check_database, environ["DATABASE_URL"])))
    if _can_be_read(connection, environ):
        checks.append(Check(TEMPORAL, "Temporal", partial(check_temporal, environ, settings.providers)))
        checks.append(Check(TEMPORAL, "Temporal's certificate", partial(check_temporals_certificate, environ)))
    key_set = environ.get("AUTH_JWKS_URL")
    alone = {"AUTH_JWKS_URL": key_set or "", "AUTH_AUDIENCE": ANY_AUDIENCE}
    if "api" in processes and key_set and _can_be_read(auth_settings, alone):
        checks.append(Check(BEARERS, "key set", partial(check_key_set, key_set)))
    for key, sender in settings.senders.items():
        checks += checks_of(key, settings.accounts[key], sender)
    return checks


def _can_be_read(read: Callable[[Mapping[str, str]], object], environ: Mapping[str, str]) -> bool:
    try:
        read(environ)
    except ConfigError:  # reported with the settings
        return False
    return True


def check_settings(environ: Mapping[str, str], processes: Collection[str]) -> FoundSettings:
    """Read the settings of these processes, every section and every app. A broken one does not hide the others."""
    found = FoundSettings()
    for name, read in {name: read for each in processes for name, read in _SECTIONS[each].items()}.items():
        found.lines.append(_section(name, read, environ))
    found.lines.extend(_presentations(environ))
    if "api" in processes:
        found.lines.extend(_tokens_of_others(environ))
    if "worker" in processes:
        _check_apps(found, environ)
    return found


def _check_apps(found: FoundSettings, environ: Mapping[str, str]) -> None:
    try:
        proxies = proxies_of(environ)
    except ConfigError:  # reported with its section
        proxies = DIRECT
    apps = list(_apps(environ))
    for app_id, app in apps:
        if isinstance(app, ConfigError):
            found.lines.append(AREA.failure(Finding.SETTING, error=app))
        else:
            found.accounts.update(accounts_of(app_id, app, proxies))
    for key, account in found.accounts.items():
        found.lines.extend(_files(found, key, account))
    found.providers.update(Provider if environ.get("APPS_FILE") else (provider for provider, _ in found.accounts))
    if not apps:
        found.lines.append(AREA.failure(Finding.NO_PROVIDER))


def _section(name: str, read: _Read, environ: Mapping[str, str]) -> ReportLine:
    try:
        read(environ)
    except ConfigError as error:
        return AREA.failure(Finding.SETTING, error=error)
    return AREA.ok(Finding.SECTION_OK, name=name)


def _presentations(environ: Mapping[str, str]) -> Iterator[ReportLine]:
    try:
        files = list(each_file(service_settings(environ)))
    except ConfigError:  # reported with its section, or with the apps
        return
    for app_id, error in files:
        app = "default app" if app_id is None else f"app {app_id}"
        ok = AREA.ok(Finding.PRESENTATION_OK, app=app)
        yield ok if error is None else AREA.failure(Finding.PRESENTATION, error=error)


def _tokens_of_others(environ: Mapping[str, str]) -> Iterator[ReportLine]:
    """Warn if tokens for other services are accepted."""
    open_to = ["AUTH_AUDIENCE is *"] if environ.get("AUTH_AUDIENCE") == ANY_AUDIENCE else []
    open_to += [] if environ.get("AUTH_ISSUER") else ["AUTH_ISSUER is not set"]
    if environ.get("AUTH_JWKS_URL") and open_to:
        yield AREA.warning(Finding.TOKENS_OF_OTHERS, open=" and ".join(open_to))


def _apps(environ: Mapping[str, str]) -> Iterator[tuple[str | None, AppSettings | ConfigError]]:
    for read, name in ((apns_settings, "apns"), (fcm_settings, "fcm")):
        try:
            settings = read(environ)
        except ConfigError as error:
            yield None, error
        else:
            if settings is not None:
                yield None, AppSettings.model_validate({name: settings})
    try:
        file = service_settings(environ).apps_file
    except ConfigError:  # reported with its section
        return
    if file is not None:
        try:
            yield from each_app(file)
        except ConfigError as error:
            yield None, error


def _files(found: FoundSettings, key: Key, account: Account) -> Iterator[ReportLine]:
    app = f"{key[0].value}, {app_name(key)}"
    try:
        found.senders[key] = sender_of(key, account)
    except UnusableFile as error:
        yield AREA.failure(Finding.KEY_FILE, app=app, error=error)
        return
    secret = account.key_file if isinstance(account, ApnsAccount) else account.service_account_file
    if _is_open_to_others(secret):
        yield AREA.warning(Finding.KEY_FILE_OPEN, app=app, file=secret)
    yield AREA.ok(Finding.KEY_FILE_OK, app=app)


def _is_open_to_others(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IROTH)
