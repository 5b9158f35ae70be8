"""One request and its answer, whichever HTTP version carried them."""

from collections.abc import Sequence
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


class StreamsInFlight(StrEnum):
    """What becomes of the streams in flight when GOAWAY is sent."""

    ANSWERED = "answered"  # those at or below last_stream_id
    DROPPED = "dropped"  # processed, but the connection closes without their answers


@dataclass(frozen=True, slots=True)
class Shutdown:
    """A GOAWAY frame."""

    error_code: int
    debug: bytes
    in_flight: StreamsInFlight


class LastStream(StrEnum):
    """The last stream that a GOAWAY names, relative to the request that triggered it."""

    THIS_ONE = "this_one"
    THE_ONE_BEFORE = "the_one_before"


class Unprocessed(StrEnum):
    """Why a complete request never reached its endpoint."""

    REFUSED_STREAM = "REFUSED_STREAM"
    AFTER_GOAWAY = "AFTER_GOAWAY"
    FROZEN = "frozen"


class Exchange:
    """A complete request, and the connection on which everything can be done to it."""

    __slots__ = (
        "body",
        "connection",
        "headers",
        "method",
        "path",
        "repeats_headers",
        "session",
        "stream_id",
        "unprocessed",
    )

    def __init__(
        self,
        connection: "ServerConnection",
        headers: Sequence[tuple[bytes, bytes]],
        session: dict[bytes, Any],
        stream_id: int = 0,
    ) -> None:
        self.connection = connection
        self.headers = dict(headers)  # lower-case names; pseudo headers become method and path
        self.repeats_headers = len(self.headers) != len(headers)
        self.method = self.headers.pop(b":method", b"")
        self.path = self.headers.pop(b":path", b"")
        self.body = b""
        self.session = session  # what the endpoint remembers about this connection
        self.stream_id = stream_id  # of HTTP/2
        self.unprocessed: Unprocessed | None = None  # refused by the connection itself


class ServerConnection(Protocol):
    """What can be done to a request. HTTP/1.1 knows no frames: what is about them cuts the connection."""

    def answer(self, exchange: Exchange, answer: Answer) -> bool:
        """Send the response; False, and nothing happens, when the stream or connection is gone."""
        ...

    def begin_answer(self, exchange: Exchange, answer: Answer) -> None:
        """Send the response's head and half of its body, and never the rest."""
        ...

    def reset(self, exchange: Exchange, error_code: int) -> None:
        """RST_STREAM."""
        ...

    def send_frame(self, exchange: Exchange, kind: int, payload: bytes) -> None:
        """Send a frame as it is, right or wrong, on the stream or, where its kind requires it, on the connection."""
        ...

    def goaway(self, exchange: Exchange, shutdown: Shutdown, last: LastStream) -> None:
        """Send GOAWAY; streams above the last one are ignored from then on."""
        ...

    def abort(self) -> None:
        """Cut the connection."""
        ...

    def freeze(self) -> None:
        """Keep the connection open and send nothing more on it, not even an answer to a PING."""
        ...


class Endpoint(Protocol):
    """One provider's side of the conversation."""

    def receive(self, exchange: Exchange) -> None:
        """Take a complete request; its answer may come later, or never."""
        ...

    def unprocessed(self, exchange: Exchange, why: Unprocessed) -> None:
        """Note a request that the connection itself refused."""
        ...
