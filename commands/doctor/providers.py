"""The doctor's look at Apple and Google: keys and names, the connection, and how a push to nobody is refused."""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from commands.doctor_advice import EXPECTED, UNREACHABLE, advice
from commands.doctor_certificates import expiry_line, file_lines
from commands.doctor_lines import Area, Check, Line
from commands.doctor_settings import app_name
from commands.doctor_web import look_at_clock
from domain.push import Environment, Provider
from push.apns import ApnsAccount
from push.apns_transport import provider_token
from push.credential_files import apns_key
from push.http2_look import look
from push.http2_proxy import ProxyTrouble
from push.probe import probe
from push.rotation import Account
from push.sender import Accepted, ProviderTrouble, Sender
from push.senders import Key

_ID = re.compile(r"[A-Z0-9]{10}")
_BUNDLE_ID = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_NAMED_BY_APPLE = re.compile(r"AuthKey_([A-Z0-9]{10})\.p8")
_RENEWED = "The provider renews its own; where a proxy opens TLS or the address is not the provider's, it is yours."


def look_at_files(key: Key, account: Account) -> list[Line]:
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


def _key_lines(area: Area, name: str, account: ApnsAccount) -> Iterator[Line]:
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


async def _connection(area: Area, environment: Environment, where: str, url: str, account: Account) -> Sequence[Line]:
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


async def _probe(provider: Provider, sender: Sender, environment: Environment, where: str) -> Sequence[Line]:
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


def _refusal(area: Area, where: str, reason: str, environment: Environment) -> Line:
    meaning, to_do = advice(Provider(area.name), reason)
    return _fault(area, environment)(f"{where}: {reason}: {meaning}", to_do)


def _fault(area: Area, environment: Environment) -> Callable[[str, str], Line]:
    """Say how bad it is: only builds from Xcode have tokens of the sandbox."""
    return area.warning if environment is Environment.SANDBOX else area.failure
