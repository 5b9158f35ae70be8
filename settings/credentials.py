"""The credentials of each app, composed from the settings. The environment's app is the default one."""

import os
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path

from domain.push import Provider
from push.apns.sender import ApnsAccount
from push.fcm.sender import FcmAccount
from push.http2.proxy import Proxies, Proxy
from push.registry import EVERY, Account, Accounts, Key, Rotation, UnusableFile
from settings.apps_file import each_app
from settings.environment import AppSettings, ConfigError, apns_settings, fcm_settings, proxy_settings, service_settings

_KEY_SETTINGS = {Provider.APNS: "APNS_KEY_FILE", Provider.FCM: "FCM_SERVICE_ACCOUNT_FILE"}


def make_rotation(environ: Mapping[str, str] = os.environ, *, every: timedelta = EVERY) -> Rotation:
    """Make the sender of each app and provider that is configured; raises ConfigError where it cannot be made."""
    try:
        return Rotation(partial(_accounts, environ), every=every)
    except UnusableFile as error:
        provider, app_id = error.key
        setting = _KEY_SETTINGS[provider] if app_id is None else f"APPS_FILE, app {app_id}"
        raise ConfigError(f"{setting}: {error}.") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def certificate_files(environ: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Name the authority files that check the providers' certificates."""
    accounts = _accounts(environ)
    return {
        f"{provider.value} {app_id or ''}".strip(): account.ca_file
        for (provider, app_id), account in accounts.of.items()
        if account.ca_file
    }


def accounts_of(app_id: str | None, app: AppSettings, proxies: Proxies) -> dict[Key, Account]:
    """Give the accounts of one app, by provider."""
    accounts: dict[Key, Account] = {}
    if app.apns:
        accounts[Provider.APNS, app_id] = ApnsAccount(**app.apns.model_dump(), encrypted=app.encrypted, proxies=proxies)
    if app.fcm:
        accounts[Provider.FCM, app_id] = FcmAccount(**app.fcm.model_dump(), encrypted=app.encrypted, proxies=proxies)
    return accounts


def proxies_of(environ: Mapping[str, str]) -> Proxies:
    """Read the proxy and its exceptions; raises ConfigError."""
    settings = proxy_settings(environ)
    https = Proxy(settings.https_proxy.get_secret_value()) if settings.https_proxy else None
    return Proxies(https, settings.direct_hosts)


def _accounts(environ: Mapping[str, str]) -> Accounts:
    """Read the account of each app and provider. An app that cannot be read does not affect the others."""
    apps_file, proxies = service_settings(environ).apps_file, proxies_of(environ)
    of: dict[Key, Account] = {}
    unreadable: dict[Key, str] = {}
    for provider, read in ((Provider.APNS, apns_settings), (Provider.FCM, fcm_settings)):
        try:
            settings = read(environ)
        except ConfigError as error:
            unreadable[provider, None] = str(error)
        else:
            if settings is not None:
                of |= accounts_of(None, AppSettings.model_validate({provider.value: settings}), proxies)
    named = {} if apps_file is None else dict(each_app(apps_file))
    for app_id, app in named.items():
        if isinstance(app, ConfigError):
            unreadable |= {(provider, app_id): str(app) for provider in Provider}
        else:
            of |= accounts_of(app_id, app, proxies)
    return Accounts(of, frozenset(named) if apps_file else None, unreadable)
