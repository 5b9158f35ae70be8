"""Authentication: bearer tokens, which are API keys, or JWTs checked against a shared secret or a key set."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from api.http.problems import Detail, ServiceUnavailable, Unauthorized
from db import api_keys
from db.api_keys import PREFIX, ApiKey, KeyState
from db.batch import Batch
from db.engine import TROUBLE, Sessions
from db.support_actions import Actor
from settings.environment import ANY_AUDIENCE, AuthSettings

LARGEST_SET = 256 * 1024  # bytes
FETCH_WITHIN = 5.0  # seconds for a whole fetch
_FRESH_FOR = 300.0  # seconds
_TRUSTED_FOR = 24 * 3600.0  # seconds that known keys are trusted while the issuer is down
_FETCH_INTERVAL = 10.0  # seconds between fetches, however many unknown keys tokens name
_RSA_BITS = range(2048, 16384 + 1)  # RFC 7518, 3.3; checks with larger keys are too expensive
log = structlog.get_logger()
FRESH_FOR = 3.0  # seconds; a revoked key is refused once they have passed
_ANSWERS_WITHIN = 5.0  # seconds
_MAX_KEPT = 1000  # keys; beyond that, those that are not fresh are dropped


class NoSuchKey(Exception):
    """The key set has no key for this token."""


class KeySet:
    """The issuer's public keys. While the issuer is down, known keys stay valid for a day."""

    algorithms: Sequence[str] = ("RS256", "ES256")

    def __init__(
        self, url: str, clock: Callable[[], float] = time.monotonic, *, fetch_within: float = FETCH_WITHIN
    ) -> None:
        self._url = url
        self._clock = clock
        self._fetch_within = fetch_within
        self._keys: Sequence[jwt.PyJWK] = ()
        self._fetched_at = self._attempted_at = float("-inf")  # seconds on the clock
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, token: str) -> jwt.PyJWK:
        """Find the key that a token's header names, or the only one that fits if it names none.

        Raises NoSuchKey; PyJWT's errors for a malformed token; ServiceUnavailable while there are no keys. A request
        waits for a fetch only if its key is unknown.
        """
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in self.algorithms:
            raise jwt.InvalidAlgorithmError
        known = self._age() <= _TRUSTED_FOR and self._named(header) is not None
        if (not known or self._age() > _FRESH_FOR) and self._clock() - self._attempted_at >= _FETCH_INTERVAL:
            self._attempted_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch())
        if not known and self._fetching is not None:
            await asyncio.shield(self._fetching)
        if self._age() > _TRUSTED_FOR:
            raise ServiceUnavailable(Detail.NO_KEYS)
        found = self._named(header)
        if found is None:
            raise NoSuchKey
        return found

    def _named(self, header: dict[str, Any]) -> jwt.PyJWK | None:
        if "kid" not in header:
            fitting = [key for key in self._keys if key.algorithm_name == header["alg"]]
            return fitting[0] if len(fitting) == 1 else None
        named = [key for key in self._keys if key.key_id == header["kid"]]
        return next((key for key in named if key.algorithm_name == header["alg"]), named[0] if named else None)

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    async def _fetch(self) -> None:
        """Replace the keys; an error leaves them as they are."""
        try:
            async with (
                asyncio.timeout(self._fetch_within),
                httpx.AsyncClient(timeout=self._fetch_within) as client,
                client.stream("GET", self._url, headers=UNCOMPRESSED) as answer,
            ):
                answer.raise_for_status()
                keys = usable_keys(await read_bounded(answer))
            if not keys:
                raise ValueError  # noqa: TRY301 -- one error of many
        except Exception as error:  # noqa: BLE001 -- issuers may answer anything
            log.error("fetching the key set failed", error=type(error).__name__)  # noqa: TRY400 -- its text names the address
            return
        self._keys = keys
        self._fetched_at = self._clock()


UNCOMPRESSED = {"Accept-Encoding": "identity"}  # a compressed answer may be of any size


async def read_bounded(answer: httpx.Response) -> bytes:
    """Read an answer without decompression; raises ValueError if it is larger than `LARGEST_SET`."""
    body = b""
    async for piece in answer.aiter_raw():
        body += piece
        if len(body) > LARGEST_SET:
            raise ValueError("too large for a key set")
    return body


def usable_keys(body: bytes) -> list[jwt.PyJWK]:
    """Read the usable keys; a bad key does not hide the others. Raises ValueError if this is not a key set."""
    try:
        published = json.loads(body)["keys"]
    except (LookupError, TypeError, RecursionError) as error:
        raise ValueError("no key set") from error
    if not isinstance(published, list):
        raise ValueError("no key set")  # noqa: TRY004 -- an error in data, not in our types
    return list(_usable(published))


def _usable(published: list[Any]) -> Iterator[jwt.PyJWK]:
    for each in published:
        try:
            key = jwt.PyJWK(each)
            if _may_check(key, each):
                yield key
        except Exception as error:  # noqa: BLE001 -- issuers may publish anything
            log.info("key of the key set ignored", error=type(error).__name__)


def _may_check(key: jwt.PyJWK, published: dict[str, Any]) -> bool:
    """Tell whether a key is for signatures, and strong enough."""
    if published.get("use", "sig") != "sig" or "verify" not in published.get("key_ops", ["verify"]):
        return False
    match key.algorithm_name, key.key:
        case "RS256", RSAPublicKey() as rsa:
            return rsa.key_size in _RSA_BITS
        case "ES256", EllipticCurvePublicKey() as ec:
            return isinstance(ec.curve, SECP256R1)
        case _:
            return False


LEEWAY = 10  # seconds by which clocks may differ
LONGEST_USER_ID = 200
_LAST_INSTANT = datetime.max.replace(tzinfo=UTC).timestamp() - 1
_NEVER = datetime.fromtimestamp(_LAST_INSTANT, UTC)


@dataclass(frozen=True, slots=True)
class Caller:
    """The user or service that a valid token names."""

    user_id: str
    scopes: frozenset[str]
    expires_at: datetime  # of the token, plus `LEEWAY` for a JWT
    is_person: bool = True  # not a service or an API key, whose name may be the id of a user

    @property
    def actor(self) -> Actor:
        """Give who acts, as it is recorded."""
        return Actor(self.user_id, self.is_person)

    @property
    def account(self) -> tuple[str, str]:
        """Name what limits are counted for."""
        return ("user" if self.is_person else "service", self.user_id)


class _Keys(Protocol):
    algorithms: Sequence[str]

    async def key(self, token: str) -> Any: ...  # noqa: ANN401 -- the key type depends on the algorithm


class _ApiKeys(Protocol):
    async def find(self, key: str) -> ApiKey | None: ...


class TokenCheck:
    """Checks bearer tokens: API keys, and JWTs by signature, expiry, and audience and issuer if they are set."""

    def __init__(self, settings: AuthSettings, api_keys: _ApiKeys | None = None) -> None:
        self._api_keys = api_keys
        self._keys = _keys(settings)
        self._audience = None if settings.audience == ANY_AUDIENCE else settings.audience
        self._issuer = settings.issuer

    async def caller(self, token: str) -> Caller:
        """Check a token and give its caller; raises Unauthorized, ServiceUnavailable."""
        if token.startswith(PREFIX):  # no JWT does, since its first part is an object in base64
            return _caller(None if self._api_keys is None else await self._api_keys.find(token))
        if self._keys is None:
            raise Unauthorized(Detail.ONLY_API_KEYS)
        try:
            claims = jwt.decode(
                token,
                await self._keys.key(token),
                algorithms=list(self._keys.algorithms),
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
            )
        except (jwt.PyJWTError, NoSuchKey) as error:
            raise Unauthorized(Detail.NOT_VALID.format(error=type(error).__name__)) from None
        user_id, scope = claims["sub"], claims.get("scope", "")
        if not is_user_id(user_id):
            raise Unauthorized(Detail.INVALID_SUBJECT.format(most=LONGEST_USER_ID))
        expires_at = datetime.fromtimestamp(min(int(claims["exp"]) + LEEWAY, _LAST_INSTANT), UTC)
        scopes = frozenset(scope.split() if isinstance(scope, str) else ())
        return Caller(user_id, scopes, expires_at, is_person="service" not in scopes)


def _caller(key: ApiKey | None) -> Caller:
    if key is None:
        raise Unauthorized(Detail.UNKNOWN_API_KEY)
    expires_at = key.expires_at or _NEVER
    if key.state is not KeyState.ACTIVE or expires_at <= datetime.now(UTC):
        raise Unauthorized(Detail.REVOKED_API_KEY if key.state is KeyState.REVOKED else Detail.EXPIRED_API_KEY)
    return Caller(key.name, frozenset(key.scopes), expires_at, is_person=False)


def is_user_id(text: str) -> bool:
    """Tell whether tokens may name this user."""
    return 0 < len(text) <= LONGEST_USER_ID and text.isprintable()


class _Secret:
    algorithms: Sequence[str] = ("HS256",)

    def __init__(self, secret: str) -> None:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)  # raises for a public key
        octets = base64.urlsafe_b64encode(secret.encode()).decode()
        self._key = jwt.PyJWK({"kty": "oct", "k": octets}, "HS256")  # prepared once, not for each token

    async def key(self, _: str) -> jwt.PyJWK:
        return self._key


def _keys(settings: AuthSettings) -> _Keys | None:
    if settings.jwt_secret is not None:
        return _Secret(settings.jwt_secret.get_secret_value())
    return None if settings.jwks_url is None else KeySet(settings.jwks_url)


@dataclass(frozen=True, slots=True)
class _Known:
    """A key as it was at a moment."""

    key: ApiKey
    looked_up_at: float  # on the clock, before the query


class ApiKeys:
    """Finds keys by their text.

    One query at a time answers all requests that wait, so made-up keys take one connection, however many there are.
    What cannot be a key costs no query.
    """

    def __init__(self, sessions: Sessions, clock: Callable[[], float] = time.monotonic) -> None:
        self._sessions = sessions
        self._clock = clock
        self._known: dict[bytes, _Known] = {}  # no unknown ones, which would fill it
        self._look_ups = Batch(self._look_up, in_flight=1, within=_ANSWERS_WITHIN)

    async def find(self, key: str) -> ApiKey | None:
        """Find a key, and record that it was used; None if there is none. Raises ServiceUnavailable."""
        digest = api_keys.digest_of(key)
        if digest is None:
            return None
        known = self._known.get(digest)
        if known is not None and self._is_fresh(known):
            return known.key
        try:
            return await self._look_ups.ask(digest)
        except TROUBLE as error:
            log.warning("looking up an API key failed", error=type(error).__name__)
            raise ServiceUnavailable(Detail.NO_KEYS) from error

    async def _look_up(self, digests: Sequence[bytes]) -> Sequence[ApiKey | None]:
        now = self._clock()
        async with self._sessions.begin() as db:
            found = await api_keys.used(db, set(digests))
        self._known |= {digest: _Known(key, now) for digest, key in found.items()}
        if len(self._known) > _MAX_KEPT:
            self._known = {digest: known for digest, known in self._known.items() if self._is_fresh(known)}
        return [found.get(digest) for digest in digests]

    def _is_fresh(self, known: _Known) -> bool:
        return self._clock() - known.looked_up_at < FRESH_FOR
