"""One request and its answer, whichever HTTP version carried them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


class SimulatedProvider(StrEnum):
    """Whose socket a request arrived on."""

    APNS = "apns"
    FCM = "fcm"


class SimulatedEnvironment(StrEnum):
    """Apple's two token spaces; FCM knows only production."""

    PRODUCTION = "production"
    SANDBOX = "sandbox"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. Every chunk becomes one DATA frame (one chunk in HTTP/1.1), empty ones included."""

    status: int
    reason: str | None = None  # for the record: APNs reason, FCM errorCode
    headers: tuple[tuple[bytes, bytes], ...] = ()
    chunks: tuple[bytes, ...] = ()


class FarewellExtent(StrEnum):
    """What becomes of the streams in flight when GOAWAY is sent."""

    ANSWER_IN_FLIGHT = "answer_in_flight"  # at or below last_stream_id they are still answered
    DROP_IN_FLIGHT = "drop_in_flight"  # processed, but the connection closes without their answers


@dataclass(frozen=True, slots=True)
class Farewell:
    """A GOAWAY frame."""

    error_code: int
    debug: bytes
    extent: FarewellExtent


class Exchange(Protocol):
    """A complete request, and everything that can be done to it."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]  # lower-case names, without pseudo headers
    repeats_headers: bool
    body: bytes
    session: dict[bytes, Any]  # what the endpoint remembers about this connection

    def answer(self, answer: Answer) -> bool:
        """Send the response; False, and nothing happens, when the stream or connection is gone."""
        ...

    def begin_answer(self, answer: Answer) -> None:
        """Send the response's head and half of its body, and never the rest."""
        ...

    def reset(self, error_code: int) -> None:
        """RST_STREAM; over HTTP/1.1 the connection is cut."""
        ...

    def utter(self, kind: int, payload: bytes) -> None:
        """Send a frame as it is, right or wrong; over HTTP/1.1 the connection is cut."""
        ...

    def goaway(self, farewell: Farewell, last: "LastStream") -> None:
        """GOAWAY; over HTTP/1.1 the connection is cut."""
        ...

    def abort(self) -> None:
        """Cut the connection."""
        ...

    def freeze(self) -> None:
        """Keep the connection open and say nothing on it any more, not even to a PING."""
        ...


class LastStream(StrEnum):
    """Where a GOAWAY draws its line, seen from the request that triggered it."""

    THIS_ONE = "this_one"
    THE_ONE_BEFORE = "the_one_before"


class Unprocessed(StrEnum):
    """Why a complete request never reached its endpoint."""

    REFUSED_STREAM = "REFUSED_STREAM"
    AFTER_GOAWAY = "AFTER_GOAWAY"
    FROZEN = "frozen"


class Endpoint(Protocol):
    """One provider's side of the conversation."""

    def receive(self, exchange: Exchange) -> None:
        """Take a complete request; its answer may come later, or never."""
        ...

    def unprocessed(self, exchange: Exchange, why: Unprocessed) -> None:
        """Note a request that the connection itself turned away."""
        ...
