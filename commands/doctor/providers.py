"""The doctor's look at Apple and Google: keys and names, the connection, and how a push to nobody is refused."""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

from commands.doctor.report import Area, Check, ReportLine, expiry_line, file_lines, look
from commands.doctor.servers import look_at_clock
from commands.doctor.settings import app_name
from domain.kinds import Kind
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

UNREACHABLE = "See that names resolve and port 443 outward is open; where a proxy leads out, set HTTPS_PROXY."


ADVICE: dict[str, tuple[str, str]] = {  # reason: what it means, what to do
    "InvalidProviderToken": (
        "the key does not sign for this key id and team, or was revoked, or our clock is wrong",
        _KEY,
    ),
    "ExpiredProviderToken": (
        "the token that we just made is too old for Apple: our clock is behind",
        "Set the clock right.",
    ),
    "MissingProviderToken": (
        "Apple saw no token, so something on the way takes it",
        "See what the proxy does to headers.",
    ),
    "BadEnvironmentKeyIdInToken": (
        "the key is for the other environment only",
        "Make a key for sandbox and production, or leave the other environment's tokens alone.",
    ),
    "Forbidden": ("Apple knows the key and does not let it", _KEY),
    "BadTopic": ("the topic is no bundle id", _TOPIC),
    "MissingTopic": ("no topic came with the push", _TOPIC),
    "TopicDisallowed": (
        "the key's team may not push to this topic, or the key is restricted to others",
        "Use the key of the team that the app belongs to; set APNS_TOPIC to its bundle id.",
    ),
    "DeviceTokenNotForTopic": ("the topic is none of this team's", _TOPIC),
    "TooManyProviderTokenUpdates": ("somebody else signs for this team, too often", "Wait 20 minutes; share one key."),
    "oauth_refused": (
        "Google gives this service account no access token: its key was deleted, it is disabled, or our clock is wrong",
        "Make a new key: Firebase console, Project settings, Service accounts; put it at FCM_SERVICE_ACCOUNT_FILE.",
    ),
    "oauth_unreachable": ("the account's token_uri does not answer as Google does", UNREACHABLE),
    "no_access_token_in_time": ("the account's token_uri does not answer in time", UNREACHABLE),
    "SENDER_ID_MISMATCH": (
        "the project of the service account is not the one that phones register with",
        "Use a service account of the project in the app's google-services.json.",
    ),
    "THIRD_PARTY_AUTH_ERROR": (
        "the project lacks credentials of another provider",
        "This service reaches iPhones through Apple; register them with provider apns.",
    ),
    "PERMISSION_DENIED": (
        "the service account may not send in this project, or the FCM API is off there",
        "Turn the Firebase Cloud Messaging API (V1) on; give the account the role Firebase Cloud Messaging API Admin.",
    ),
    "NOT_FOUND": (
        "there is no such project at this address",
        "Compare project_id in the service account's file with the console, and FCM_URL with Google's.",
    ),
    "UNAUTHENTICATED": ("Google does not know the token that it gave", "Look for a proxy that changes headers."),
    "connect_failed": ("no connection could be made", UNREACHABLE),
    "no_slot_in_time": ("a connection was made, and no call let in", UNREACHABLE),
}

_OF_STATUS = {  # where an answer names no reason; Apple's always do
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
            "See what stands on the way: APNS_URL and APNS_SANDBOX_URL have to lead to Apple, past no gateway.",
        )
    if reason.startswith("proxy_"):
        return "the proxy does not lead there", "Set HTTPS_PROXY and NO_PROXY right, and let the proxy allow CONNECT."
    return "not the refusal that a token of nobody's gets", "Look it up in the provider's documentation, and try again."


NOBODY = {Provider.APNS: "f" * 64, Provider.FCM: "fastbell-doctor/nobody"}  # tokens that no phone can have


async def probe(sender: Sender, provider: Provider, environment: Environment) -> Answer:
    """Make one provider call, which is not repeated; raises ProviderTrouble."""
    async with sender.lease(environment) as send:
        return await send(_push(provider))


def _push(provider: Provider) -> Push:
    return Push(
        task_id=uuid4(),
        attempt_id=uuid4(),
        kind=Kind.TEST,
        token=NOBODY[provider],
        title="Fastbell",
        body="Nobody reads this.",
        generic_title="Fastbell",
        generic_body="Nobody reads this.",
        url="fastbell://doctor",
        collapse_key=None,
        thread_id="doctor",
        expires_at=datetime.now(UTC) + timedelta(minutes=1),
        validate_only=True,
    )


_ID = re.compile(r"[A-Z0-9]{10}")

_BUNDLE_ID = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")

_NAMED_BY_APPLE = re.compile(r"AuthKey_([A-Z0-9]{10})\.p8")

_RENEWED = "The provider renews its own; where a proxy opens TLS or the address is not the provider's, it is yours."


def look_at_files(key: Key, account: Account) -> list[ReportLine]:
    """See what can be seen without the network."""
    area, name = _area(key), app_name(key)
    lines = [*_key_lines(area, name, account)] if isinstance(account, ApnsAccount) else []
    if account.ca_file is not None:
        lines += file_lines(area, f"{name}: authorities in {account.ca_file}", account.ca_file)
    return lines


def checks_of(key: Key, account: Account, sender: Sender) -> list[Check]:
    """Name the looks at one app's provider over the network."""
    area, found = _area(key), []
    for environment, (where, url) in _places(key, account).items():
        found.append(Check(area, f"{where}: connection", partial(_connection, area, environment, where, url, account)))
        found.append(Check(area, f"{where}: probe", partial(_probe, key[0], sender, environment, where)))
    if key[0] is Provider.FCM:  # Apple tells no time
        clock = partial(look_at_clock, area, account.url, account.ca_file, account.proxies)
        found.append(Check(area, f"{app_name(key)}: clock", clock))
    return found


def _area(key: Key) -> Area:
    return Area(key[0].value)


def _places(key: Key, account: Account) -> Mapping[Environment, tuple[str, str]]:
    name = app_name(key)
    found = {Environment.PRODUCTION: (name, account.url)}
    if isinstance(account, ApnsAccount):
        found[Environment.PRODUCTION] = (f"{name}, production", account.url)
        found[Environment.SANDBOX] = (f"{name}, sandbox", account.sandbox_url)
    return found


def _key_lines(area: Area, name: str, account: ApnsAccount) -> Iterator[ReportLine]:
    try:
        provider_token(apns_key(account.key_file.read_bytes()), account.key_id, account.team_id).get_header()
    except (ValueError, OSError):  # told with the settings
        return
    yield area.ok(f"{name}: the key signs")
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
        to_do = "Ids at Apple have ten capital letters and digits; a topic is a bundle id such as com.example.app."
        yield area.warning(f"{name}: {', '.join(odd)}: not as Apple makes them", to_do)
    else:
        yield area.ok(f"{name}: key id, team id and topic look like Apple's")


async def _connection(
    area: Area, environment: Environment, where: str, url: str, account: Account
) -> Sequence[ReportLine]:
    fault = _fault(area, environment)
    try:
        peer = await look(url, account.ca_file, account.proxies)
    except ssl.SSLCertVerificationError as error:
        to_do = (
            "Take the proxy off this way or trust its authority (…_CA_FILE); an expired certificate has to be renewed."
        )
        return [fault(f"{where}: its certificate is not good: {error.verify_message}", to_do)]
    except ProxyTrouble as error:
        meaning, to_do = advice(Provider(area.name), error.reason)
        return [fault(f"{where}: no connection: {meaning} ({error.reason})", to_do)]
    except OSError as error:
        return [fault(f"{where}: no connection ({type(error).__name__})", UNREACHABLE)]
    if peer is None:
        return [area.warning(f"{where}: connects without TLS", "Use an https:// address.")]
    if peer.protocol != "h2":
        to_do = "Let the way there be a plain tunnel: whatever opens TLS has to speak HTTP/2."
        return [fault(f"{where}: does not speak HTTP/2 ({peer.tls}, ALPN {peer.protocol})", to_do)]
    return [
        area.ok(f"{where}: connects ({peer.tls}, HTTP/2)"),
        expiry_line(area, where, peer.expires_at, _RENEWED),
    ]


async def _probe(provider: Provider, sender: Sender, environment: Environment, where: str) -> Sequence[ReportLine]:
    """Make the one call that tells most: whether a push to nobody is refused for its token alone."""
    area = Area(provider.value)
    try:
        answer = await probe(sender, provider, environment)
    except ProviderTrouble as trouble:
        return [_refusal(area, where, trouble.reason, environment)]
    if isinstance(answer, Accepted):
        return [area.warning(f"{where}: a push to nobody was accepted", "See whether this address is the provider's.")]
    if answer.reason in EXPECTED[provider]:
        return [area.ok(f"{where}: a push to nobody is refused as it should be ({answer.reason})")]
    return [_refusal(area, where, answer.reason, environment)]


def _refusal(area: Area, where: str, reason: str, environment: Environment) -> ReportLine:
    meaning, to_do = advice(Provider(area.name), reason)
    return _fault(area, environment)(f"{where}: {reason}: {meaning}", to_do)


def _fault(area: Area, environment: Environment) -> Callable[[str, str], ReportLine]:
    """Say how bad it is: only builds from Xcode have tokens of the sandbox."""
    return area.warning if environment is Environment.SANDBOX else area.failure
