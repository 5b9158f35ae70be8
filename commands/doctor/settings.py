"""The doctor's look at settings: every section, every app, and the files that they name."""

import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from commands.doctor.report import Area, ReportLine
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
        "gates and brake": limiter_settings,
        "retention": retention_settings,
    },
}
_TO_DO = "Set it right; .env.example and docs/apps.md say what it means."


@dataclass(frozen=True, slots=True)
class FoundSettings:
    """What the settings say, as far as they can be read."""

    lines: list[ReportLine] = field(default_factory=list)
    accounts: dict[Key, Account] = field(default_factory=dict)
    senders: dict[Key, Sender] = field(default_factory=dict)  # of those whose files can be used; to be closed
    providers: set[Provider] = field(default_factory=set)  # that workers take work for


def look_at_settings(environ: Mapping[str, str], processes: Collection[str]) -> FoundSettings:
    """Read what these processes read, every section and every app; one that is broken hides no other."""
    found = FoundSettings()
    for name, read in {name: read for each in processes for name, read in _SECTIONS[each].items()}.items():
        found.lines.append(_section(name, read, environ))
    if "api" in processes:
        found.lines.extend(_tokens_for_all(environ))
    if "worker" in processes:
        _look_at_apps(found, environ)
    return found


def app_name(key: Key) -> str:
    """Name an app."""
    return key[1] or "default app"


def _look_at_apps(found: FoundSettings, environ: Mapping[str, str]) -> None:
    try:
        proxies = proxies_of(environ)
    except ConfigError:  # told with its section
        proxies = DIRECT
    apps = list(_apps(environ))
    for app_id, app in apps:
        if isinstance(app, ConfigError):
            found.lines.append(AREA.failure(str(app), _TO_DO))
        else:
            found.accounts.update(accounts_of(app_id, app, proxies))
    for key, account in found.accounts.items():
        found.lines.extend(_files(found, key, account))
    found.providers.update(Provider if environ.get("APPS_FILE") else (provider for provider, _ in found.accounts))
    if not apps:
        to_do = "Set APNS_KEY_FILE, FCM_SERVICE_ACCOUNT_FILE or APPS_FILE (.env.example)."
        found.lines.append(AREA.failure("no provider is configured, so no worker starts", to_do))


def _section(name: str, read: _Read, environ: Mapping[str, str]) -> ReportLine:
    try:
        read(environ)
    except ConfigError as error:
        return AREA.failure(str(error), _TO_DO)
    return AREA.ok(f"{name}: present and consistent")


def _tokens_for_all(environ: Mapping[str, str]) -> Iterator[ReportLine]:
    """Warn where a key set signs for others, too."""
    open_to = ["AUTH_AUDIENCE is *"] if environ.get("AUTH_AUDIENCE") == ANY_AUDIENCE else []
    open_to += [] if environ.get("AUTH_ISSUER") else ["AUTH_ISSUER is not set"]
    if environ.get("AUTH_JWKS_URL") and open_to:
        found = f"{' and '.join(open_to)}: tokens that the issuer made for other services are taken, too"
        yield AREA.warning(found, "Set what `aud` and `iss` of your tokens are.")


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
    except ConfigError:  # told with its section
        return
    if file is not None:
        try:
            yield from each_app(file)
        except ConfigError as error:
            yield None, error


def _files(found: FoundSettings, key: Key, account: Account) -> Iterator[ReportLine]:
    try:
        found.senders[key] = sender_of(key, account)
    except UnusableFile as error:
        to_do = "Use the file as Apple's or Google's console gave it: a .p8 key, or a service account's JSON."
        yield AREA.failure(f"{key[0].value}, {app_name(key)}: {error}", to_do)
        return
    secret = account.key_file if isinstance(account, ApnsAccount) else account.service_account_file
    if _is_open_to_others(secret):
        open_to_all = f"{key[0].value}, {app_name(key)}: {secret} can be read by everybody on this machine"
        yield AREA.warning(open_to_all, "chmod 400, and let the user that runs Fastbell own it.")
    yield AREA.ok(f"{key[0].value}, {app_name(key)}: key file can be used")


def _is_open_to_others(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IROTH)
