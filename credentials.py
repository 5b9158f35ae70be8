"""Who sends for which app, composed from the settings: the environment's app is the default one."""

import os
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path

from apps_file import app_settings
from config import AppSettings, ConfigError, apns_settings, fcm_settings, proxy_settings, service_settings
from domain.push import Provider
from push.apns import ApnsAccount
from push.fcm import FcmAccount
from push.http2_proxy import Proxies, Proxy
from push.rotation import EVERY, Account, Accounts, Rotation, UnusableFile
from push.senders import Key

_KEY_SETTINGS = {Provider.APNS: "APNS_KEY_FILE", Provider.FCM: "FCM_SERVICE_ACCOUNT_FILE"}


def make_rotation(environ: Mapping[str, str] = os.environ, *, every: timedelta = EVERY) -> Rotation:
    """Make the sender of each app and provider that is configured; raises ConfigError where it cannot be made."""
    try:
        return Rotation(partial(_accounts, environ), every=every)
    except UnusableFile as error:
        provider, app_id = error.key
        setting = _KEY_SETTINGS[provider] if app_id is None else f"APPS_FILE, app {app_id}"
        raise ConfigError(f"{setting}: {error}.") from None


def certificate_files(environ: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Name the files of authorities that the providers' certificates are checked with."""
    accounts = _accounts(environ)
    return {
        f"{provider.value} {app_id or ''}".strip(): account.ca_file
        for (provider, app_id), account in accounts.of.items()
        if account.ca_file
    }


def accounts_of(app_id: str | None, app: AppSettings, proxies: Proxies) -> dict[Key, Account]:
    """Say who sends for one app."""
    found: dict[Key, Account] = {}
    if app.apns:
        found[Provider.APNS, app_id] = ApnsAccount(**app.apns.model_dump(), encrypted=app.encrypted, proxies=proxies)
    if app.fcm:
        found[Provider.FCM, app_id] = FcmAccount(**app.fcm.model_dump(), encrypted=app.encrypted, proxies=proxies)
    return found


def proxies_of(environ: Mapping[str, str]) -> Proxies:
    """Read which proxy leads where; raises ConfigError."""
    settings = proxy_settings(environ)
    https = Proxy(settings.https_proxy.get_secret_value()) if settings.https_proxy else None
    return Proxies(https, settings.spared)


def _accounts(environ: Mapping[str, str]) -> Accounts:
    """Read who sends for which app; the environment's app is the default one."""
    apns, fcm, apps_file = apns_settings(environ), fcm_settings(environ), service_settings(environ).apps_file
    default = AppSettings(apns=apns, fcm=fcm) if apns or fcm else None
    named = {} if apps_file is None else app_settings(apps_file)
    proxies = proxies_of(environ)
    of = accounts_of(None, default, proxies) if default else {}
    for app_id, app in named.items():
        of |= accounts_of(app_id, app, proxies)
    return Accounts(of, frozenset(named) if apps_file else None)
