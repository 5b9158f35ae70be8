"""The doctor's checks of Apple and Google: keys and names, the connection, and a probe that must be refused."""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

from commands.doctor.report import Area, Check, Finding, ReportLine, connect_to, expiry_line, file_lines
from commands.doctor.servers import check_clock
from domain.kinds import Kind
from domain.presentation import Look
from domain.push import Environment, Provider, Push
from push.apns.sender import ApnsAccount
from push.apns.transport import provider_token
from push.credential_files import apns_key
from push.http2.proxy import ProxyTrouble
from push.registry import Account, Key
from push.sender import Accepted, Answer, ProviderTrouble, Sender

EXPECTED = {
    Provider.APNS: frozenset({"BadDeviceToken"}),
    Provider.FCM: frozenset({"INVALID_ARGUMENT", "INVALID_ARGUMENT_TOKEN", "UNREGISTERED"}),
}


_KEY = "Compare APNS_KEY_FILE, APNS_KEY_ID and APNS_TEAM_ID with Keys and Membership in Apple's developer account."
_TOPIC = "Set APNS_TOPIC to the bundle id of the app, as its App ID has it (case counts)."
UNREACHABLE = "Check that names resolve and that port 443 is open outward. If a proxy leads out, set HTTPS_PROXY."


ADVICE: dict[str, tuple[str, str]] = {  # reason: what it means, what to do
    "InvalidProviderToken": (
        "the key does not sign for this key id and team, or was revoked, or our clock is wrong",
        _KEY,
    ),
    "ExpiredProviderToken": (
        "the token that we just made is too old for Apple: our clock is behind",
        "Correct the clock.",
    ),
    "MissingProviderToken": (
        "Apple saw no token, so something on the path removes it",
        "Check what the proxy does to headers.",
    ),
    "BadEnvironmentKeyIdInToken": (
        "the key is for the other environment only",
        "Make a key for both sandbox and production, or do not register tokens of the other environment.",
    ),
    "Forbidden": ("Apple knows the key and denies it access", _KEY),
    "BadTopic": ("the topic is not a bundle id", _TOPIC),
    "MissingTopic": ("the push had no topic", _TOPIC),
    "TopicDisallowed": (
        "the key's team may not push to this topic, or the key is restricted to others",
        "Use the key of the app's team, and set APNS_TOPIC to the app's bundle id.",
    ),
    "DeviceTokenNotForTopic": ("the topic does not belong to this team", _TOPIC),
    "TooManyProviderTokenUpdates": ("another process signs too often for this team", "Wait 20 minutes. Share one key."),
    "oauth_refused": (
        "Google gives this service account no access token: the key was deleted, it is disabled, or our clock is wrong",
        "Make a new key for FCM_SERVICE_ACCOUNT_FILE: Firebase console, Project settings, Service accounts.",
    ),
    "oauth_unreachable": ("the account's token_uri does not answer as Google does", UNREACHABLE),
    "no_access_token_in_time": ("the account's token_uri does not answer in time", UNREACHABLE),
    "SENDER_ID_MISMATCH": (
        "the project of the service account is not the one that phones register with",
        "Use a service account of the project in the app's google-services.json.",
    ),
    "THIRD_PARTY_AUTH_ERROR": (
        "the project lacks credentials of another provider",
        "Register iPhones with provider apns: Fastbell reaches them through Apple.",
    ),
    "PERMISSION_DENIED": (
        "the service account may not send in this project, or the FCM API is off there",
        "Enable the Firebase Cloud Messaging API (V1). Give the account the role Firebase Cloud Messaging API Admin.",
    ),
    "NOT_FOUND": (
        "there is no such project at this address",
        "Compare project_id in the service account's file with the console, and FCM_URL with Google's.",
    ),
    "UNAUTHENTICATED": ("Google does not accept the token that it gave", "Look for a proxy that changes headers."),
    "connect_failed": ("no connection could be made", UNREACHABLE),
    "no_slot_in_time": ("a connection was made, but no call was let in", UNREACHABLE),
}

_OF_STATUS = {  # for answers without a reason; Apple's always have one
    Provider.APNS: {},
    Provider.FCM: {"http_403": "PERMISSION_DENIED", "http_404": "NOT_FOUND", "http_401": "UNAUTHENTICATED"},
}


def advice(provider: Provider, reason: str) -> tuple[str, str]:
    """Say what a reason means, and what to do."""
    known = ADVICE.get(_OF_STATUS[provider].get(reason, reason))
    if known:
        return known
    if provider is Provider.APNS and reason.startswith("http_"):
        return (
            "an answer without a reason, so it is not Apple's",
            "Check the path: APNS_URL and APNS_SANDBOX_URL have to lead to Apple, without a gateway.",
        )
    if reason.startswith("proxy_"):
        return "the proxy does not lead there", "Correct HTTPS_PROXY and NO_PROXY, and let the proxy allow CONNECT."
    return "not the expected refusal of the probe", "Look up the reason in the provider's documentation, and try again."


PROBE_TOKENS = {Provider.APNS: "f" * 64, Provider.FCM: "fastbell-doctor/nobody"}  # no phone can have these


async def probe(sender: Sender, provider: Provider, environment: Environment) -> Answer:
    """Make one provider call, which is not repeated; raises ProviderTrouble."""
    async with sender.lease(environment) as send:
        return await send(_push(provider))


def _push(provider: Provider) -> Push:
    return Push(
        task_id=uuid4(),
        attempt_id=uuid4(),
        kind=Kind.TEST,
        token=PROBE_TOKENS[provider],
        title="Fastbell",
        body="No phone shows this.",
        generic_title="Fastbell",
        generic_body="No phone shows this.",
        url="fastbell://doctor",
        collapse_key=None,
        thread_id="doctor",
        expires_at=datetime.now(UTC) + timedelta(minutes=1),
        useful_for=timedelta(minutes=1),
        look=Look(),
        validate_only=True,
    )


_ID = re.compile(r"[A-Z0-9]{10}")
_BUNDLE_ID = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_NAMED_BY_APPLE = re.compile(r"AuthKey_([A-Z0-9]{10})\.p8")
_TRUST_IT = "Bypass the proxy, or trust its authority (…_CA_FILE). An expired certificate has to be renewed."
_RENEWED = "Renew it if it is the certificate of your proxy or gateway. The provider renews its own."


def app_name(key: Key) -> str:
    """Name an app."""
    return key[1] or "default app"


def check_files(key: Key, account: Account) -> list[ReportLine]:
    """Check what needs no network."""
    area, name = _area(key), app_name(key)
    lines = [*_key_lines(area, name, account)] if isinstance(account, ApnsAccount) else []
    if account.ca_file is not None:
        lines += file_lines(area, f"{name}: authorities in {account.ca_file}", account.ca_file)
    return lines


def checks_of(key: Key, account: Account, sender: Sender) -> list[Check]:
    """List the checks of one app's provider over the network."""
    area, found = _area(key), []
    for environment, (where, url) in _targets(key, account).items():
        found.append(Check(area, f"{where}: connection", partial(_connection, area, environment, where, url, account)))
        found.append(Check(area, f"{where}: probe", partial(_probe, key[0], sender, environment, where)))
    if key[0] is Provider.FCM:  # Apple's answers have no Date
        clock = partial(check_clock, area, account.url, account.ca_file, account.proxies)
        found.append(Check(area, f"{app_name(key)}: clock", clock))
    return found


def _area(key: Key) -> Area:
    return Area(key[0].value)


def _targets(key: Key, account: Account) -> Mapping[Environment, tuple[str, str]]:
    name = app_name(key)
    found = {Environment.PRODUCTION: (name, account.url)}
    if isinstance(account, ApnsAccount):
        found[Environment.PRODUCTION] = (f"{name}, production", account.url)
        found[Environment.SANDBOX] = (f"{name}, sandbox", account.sandbox_url)
    return found


def _key_lines(area: Area, name: str, account: ApnsAccount) -> Iterator[ReportLine]:
    try:
        provider_token(apns_key(account.key_file.read_bytes()), account.key_id, account.team_id).get_header()
    except (ValueError, OSError):  # reported with the settings
        return
    yield area.ok(Finding.KEY_OK, name=name)
    odd = [
        f"{what} {value!r}"
        for what, value in (("key id", account.key_id), ("team id", account.team_id))
        if not _ID.fullmatch(value)
    ]
    if not _BUNDLE_ID.fullmatch(account.topic):
        odd.append(f"topic {account.topic!r}")
    named = _NAMED_BY_APPLE.fullmatch(account.key_file.name)
    if named and named[1] != account.key_id:
        odd.append(f"key id {account.key_id!r} beside the file of key {named[1]}")
    if odd:
        yield area.warning(Finding.IDS_ODD, name=name, odd=", ".join(odd))
    else:
        yield area.ok(Finding.IDS_OK, name=name)


async def _connection(
    area: Area, environment: Environment, where: str, url: str, account: Account
) -> Sequence[ReportLine]:
    fault = _fault(area, environment)
    try:
        peer = await connect_to(url, account.ca_file, account.proxies)
    except ssl.SSLCertVerificationError as error:
        return [fault(Finding.UNTRUSTED, whose=where, error=error.verify_message, renewal=_TRUST_IT)]
    except ProxyTrouble as error:
        return [_refusal(area, where, error.reason, environment)]
    except OSError as error:
        return [fault(Finding.NO_CONNECTION, where=where, error=type(error).__name__, to_do=UNREACHABLE)]
    if peer is None:
        return [area.warning(Finding.NO_TLS, where=where)]
    if peer.protocol != "h2":
        return [fault(Finding.NO_HTTP2, where=where, tls=peer.tls, protocol=peer.protocol)]
    return [area.ok(Finding.CONNECTED, where=where, tls=peer.tls), expiry_line(area, where, peer.expires_at, _RENEWED)]


async def _probe(provider: Provider, sender: Sender, environment: Environment, where: str) -> Sequence[ReportLine]:
    """Check that a push to a token of no phone is refused for its token alone."""
    area = Area(provider.value)
    try:
        answer = await probe(sender, provider, environment)
    except ProviderTrouble as trouble:
        return [_refusal(area, where, trouble.reason, environment)]
    if isinstance(answer, Accepted):
        return [area.warning(Finding.PROBE_ACCEPTED, where=where)]
    if answer.reason in EXPECTED[provider]:
        return [area.ok(Finding.PROBE_OK, where=where, reason=answer.reason)]
    return [_refusal(area, where, answer.reason, environment)]


def _refusal(area: Area, where: str, reason: str, environment: Environment) -> ReportLine:
    meaning, to_do = advice(Provider(area.name), reason)
    return _fault(area, environment)(Finding.REFUSED, where=where, reason=reason, meaning=meaning, to_do=to_do)


def _fault(area: Area, environment: Environment) -> Callable[..., ReportLine]:
    """Choose the level: only builds from Xcode have tokens of the sandbox."""
    return area.warning if environment is Environment.SANDBOX else area.failure
