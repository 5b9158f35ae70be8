"""One call on an HTTP/2 connection: what is still to be sent, and what has come back so far."""

import asyncio
from dataclasses import dataclass, field

from push.sender import Fate, NoRoom, Unavailable

BODY_AT_MOST = 65536  # bytes; no answer worth reading is longer


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: its body may be empty or HTML."""

    status: int
    headers: dict[bytes, bytes] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(slots=True, eq=False)
class Call:
    """A stream's state. Its future is guarded: the caller may have been cancelled meanwhile."""

    answer: asyncio.Future[Response]
    sent_at: float  # the event loop's clock
    answers_before: int  # on this connection; none since is a bad sign
    unsent: bytes = field(repr=False)
    window: int = 0  # bytes that the peer has leave for on this stream
    uncredited: int = 0  # bytes received that the peer was not given back yet
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    def read(self, piece: bytes) -> None:
        """Keep a piece of the answer's body."""
        if len(self.body) < BODY_AT_MOST:
            self.body += piece

    def finish(self) -> None:
        """Hand the answer to the caller."""
        if not self.answer.done():
            self.answer.set_result(Response(self.status, self.headers, self.body))

    def fail(self, reason: str, fate: Fate) -> None:
        """Tell the caller that there will be no answer. A request that never left in full was never processed."""
        if self.status == 200:
            self.finish()  # cut off behind the status line, which says it all
        elif not self.answer.done():
            self.answer.set_exception(Unavailable(reason, Fate.NEVER_PROCESSED if self.unsent else fate))

    def turn_away(self, reason: str) -> None:
        """Tell the caller that the peer had no room for the call, and never looked at it."""
        if not self.answer.done():
            self.answer.set_exception(NoRoom(reason))
