"""The wire log: every request that reached a provider's socket, accepted or not."""

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from simulator.http.exchange import SimulatedEnvironment, SimulatedProvider

_MAX_REQUESTS = 200_000
_SECRET_HEADERS = frozenset({b"authorization"})
_PSEUDO_HEADERS = frozenset({b":scheme", b":authority"})


@dataclass(slots=True, eq=False)
class WireRequest:
    """One request. `status` stays None when no answer was sent; `reason` then says why."""

    number: int
    received_timestamp: float
    provider: SimulatedProvider
    environment: SimulatedEnvironment
    token: str
    raw_headers: dict[bytes, bytes]
    body: bytes
    app: str = ""  # APNs topic, or FCM project
    message_id: str | None = None  # apns-id, or the FCM message name
    status: int | None = None
    reason: str | None = None

    @property
    def received_at(self) -> datetime:
        """When the whole request had arrived."""
        return datetime.fromtimestamp(self.received_timestamp, UTC)

    @property
    def headers(self) -> dict[str, str]:
        """As received; credentials are replaced by a dash."""
        return {
            name.decode("latin-1"): "-" if name in _SECRET_HEADERS else value.decode("latin-1")
            for name, value in self.raw_headers.items()
            if name not in _PSEUDO_HEADERS
        }

    @property
    def payload(self) -> object:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class WireLog:
    """The latest requests in order of arrival."""

    def __init__(self) -> None:
        self._requests: deque[WireRequest] = deque(maxlen=_MAX_REQUESTS)
        self._count = 0
        self._arrivals: list[asyncio.Event] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[WireRequest]:
        return iter(tuple(self._requests))

    def __getitem__(self, index: int) -> WireRequest:
        return self._requests[index]

    def append(
        self,
        received_timestamp: float,
        provider: SimulatedProvider,
        environment: SimulatedEnvironment,
        token: str,
        headers: dict[bytes, bytes],
        body: bytes,
    ) -> WireRequest:
        """Record a request before it is checked."""
        self._count += 1
        request = WireRequest(self._count, received_timestamp, provider, environment, token, headers, body)
        self._requests.append(request)
        for arrival in self._arrivals:
            arrival.set()
        return request

    def for_token(self, token: str) -> list[WireRequest]:
        """Every request to one token, refused ones included."""
        return [request for request in self._requests if request.token == token]

    def after(self, number: int, limit: int) -> list[WireRequest]:
        """Read the oldest `limit` requests with a higher number."""
        skipped = max(0, number - (self._count - len(self._requests)))
        return [self._requests[index] for index in range(skipped, min(skipped + limit, len(self._requests)))]

    def clear(self) -> None:
        """Forget everything; numbers go on."""
        self._requests.clear()

    async def wait(self, count: int, *, token: str | None = None, within: float = 20.0) -> list[WireRequest]:
        """Wait until `count` requests (to `token`, where given) have arrived; TimeoutError after `within` seconds."""
        arrival = asyncio.Event()
        self._arrivals.append(arrival)
        try:
            async with asyncio.timeout(within):
                while len(seen := list(self._requests) if token is None else self.for_token(token)) < count:
                    arrival.clear()
                    await arrival.wait()
                return seen
        finally:
            self._arrivals.remove(arrival)
