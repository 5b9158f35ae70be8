"""One HTTP/2 client connection: streams, timeouts, keep-alive. A failure says whether a call may be processed."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import cast

import structlog
from hpack import HeaderTuple

from push.http2.frames import BrokenProtocol, OddFrame
from push.http2.streams import Call, Response, Streams
from push.sender import Delivery, NoRoom, Unavailable

log = structlog.get_logger()

QUIET_AFTER = 30.0  # seconds of silence, after which a connection has to answer a PING before it is used
PING_EVERY = 3600.0  # seconds; Apple: check an idle connection once an hour
ANSWERS_WITHIN = 0.3  # seconds; Apple takes a tenth of that. Longer calls are followed by one PING
ALIVE_WITHIN = 1.0  # seconds for the answer to a PING; without it the connection is dropped
STOOD_STILL = 0.1  # seconds; if a timer is later than that, the process was frozen
MAX_IN_FLIGHT = 100  # calls; more on one connection only lengthen the slowest ones
LEAST_BODY, MAX_BODY = 512, 4096  # bytes of window reserved for a lease whose body is not known yet
MAX_UNREAD = 1 << 20  # bytes; calls alone cannot make so many, but a peer that sends PINGs and does not read can
START_WITHIN = 0.25  # seconds that a call may wait for the peer's window; the caller's check must stay fresh


class KeepAlive:
    """Watches one connection."""

    def __init__(self, *, within: float, send_ping: Callable[[], None], on_death: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._within = within
        self._send_ping = send_ping
        self._on_death = on_death
        self._idle = self._loop.call_later(PING_EVERY, self._check_idle)
        self._deadline: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self.replied_at = self._loop.time()

    @property
    def is_awaited(self) -> bool:
        """Whether the peer's reply is awaited."""
        return self._deadline is not None

    @property
    def quiet(self) -> bool:
        """Whether the peer was silent for so long that it may be gone."""
        return self._loop.time() - self.replied_at > QUIET_AFTER

    def note_reply(self) -> None:
        """Note that the peer has sent something."""
        self.replied_at = self._loop.time()
        self._forget()

    def note_request(self) -> None:
        """Note a request. If the peer sends nothing for too long, a PING follows."""
        if not self._silence:
            self._silence = self._loop.call_later(ANSWERS_WITHIN, self.ask)

    def ask(self) -> None:
        """Send a PING, and wait for anything from the peer."""
        if not self._deadline:
            self._wait()
            self._send_ping()

    def stop(self) -> None:
        """Stop watching."""
        self._idle.cancel()
        self._forget()

    def _forget(self) -> None:
        for timer in (self._deadline, self._silence):
            if timer:
                timer.cancel()
        self._deadline = self._silence = None

    def _wait(self) -> None:
        self._deadline = self._loop.call_later(self._within, self._decide, self._loop.time() + self._within)

    def _decide(self, at: float) -> None:
        if self._loop.time() - at > STOOD_STILL:  # what the peer has sent may not be read yet
            self._wait()
        else:
            self._on_death()

    def _check_idle(self) -> None:
        if self.quiet:
            self.ask()
        self._idle = self._loop.call_later(PING_EVERY, self._check_idle)


class ConnectionCapacity:
    """Counts streams: each is taken first, and used or given back later. The peer may change its limits meanwhile."""

    def __init__(self, streams: Streams) -> None:
        self._loop = asyncio.get_running_loop()
        self._streams = streams
        self._taken = 0
        self._reserved = LEAST_BODY  # for each lease: the size of the largest recent bodies
        self._starters: list[asyncio.Future[None]] = []

    @property
    def free(self) -> int:
        """Streams that can be taken, by the peer's limit and window."""
        return 0 if self._lacks_window else self._limit - self._taken - len(self._streams.calls)

    @property
    def full(self) -> bool:
        """Whether another connection would help.

        At a limit of one it would not, since Apple raises that after one success; unless the call in flight is slow.
        One phone whose calls hang would block everybody else's until they time out.
        """
        if self._limit > 1:
            return self._taken + len(self._streams.calls) >= self._limit or self._lacks_window
        oldest = next(iter(self._streams.calls.values()), None)
        return oldest is not None and self._loop.time() - oldest.sent_at >= ANSWERS_WITHIN

    @property
    def idle(self) -> bool:
        """Whether no stream is taken and no call is in flight."""
        return not self._taken and not self._streams.calls

    def take(self) -> None:
        """Take a stream."""
        self._taken += 1

    def give_back(self) -> None:
        """Return a stream."""
        self._taken -= 1

    def use(self, size: int) -> None:
        """Use a stream for a call with a body of so many bytes."""
        self._taken -= 1
        self._reserved = min(max(size, LEAST_BODY, self._reserved - self._reserved // 64), MAX_BODY)

    def may_start(self, size: int) -> bool:
        """Whether a call with a body of so many bytes may start now."""
        return len(self._streams.calls) < self._limit and self._streams.window >= size

    async def change(self, until: float) -> None:
        """Wait until `may_start` may have changed; raises NoRoom after `until`, by the loop's clock."""
        starter = self._loop.create_future()
        self._starters.append(starter)
        try:
            async with asyncio.timeout_at(until):
                await starter
        except TimeoutError:
            raise NoRoom("no_room_on_connection", Delivery.NOT_SENT) from None
        if self._loop.time() > until:  # the process was frozen; the caller's check may be too old
            raise NoRoom("no_room_on_connection", Delivery.NOT_SENT)

    def changed(self) -> None:
        """Let the waiting calls look again."""
        starters, self._starters = self._starters, []
        for starter in starters:
            if not starter.done():
                starter.set_result(None)

    @property
    def _limit(self) -> int:
        return min(self._streams.limit, MAX_IN_FLIGHT)

    @property
    def _lacks_window(self) -> bool:
        return self._streams.window < self._reserved * (self._taken + 1)


class Connection(asyncio.Protocol):
    """Streams are taken first and used (or given back) later, so that nothing waits between decision and call."""

    def __init__(self, *, answer_timeout: float, on_change: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = answer_timeout
        self._on_change = on_change
        self._streams = Streams()
        self._capacity = ConnectionCapacity(self._streams)
        self._transport: asyncio.Transport | None = None
        self._retired: str | None = None
        self._flushing = False
        self._watch: asyncio.TimerHandle | None = None
        self.ready = asyncio.Event()  # greeted by the peer, or lost
        self.closed = self._loop.create_future()
        self.users: Counter[int] = Counter()  # streams taken and calls in flight, by user
        self.ended_with: frozenset[int] = frozenset()  # the users on it when it stopped taking calls

    @property
    def greeted(self) -> bool:
        """Whether the peer speaks HTTP/2."""
        return self._streams.greeted

    @property
    def usable(self) -> bool:
        """Whether calls may start, now or once there is room."""
        return self._streams.greeted and self._retired is None

    @property
    def room(self) -> int:
        """Streams that can be taken now."""
        return self._capacity.free if self.usable and not self.awaits_reply else 0

    @property
    def full(self) -> bool:
        """Whether another connection would help."""
        return self._capacity.full or (self.awaits_reply and not self._capacity.idle)

    @property
    def is_stuck(self) -> bool:
        """Whether there is no room though nothing is in flight: only the peer could make some."""
        return self.usable and self.room <= 0 and self._capacity.idle

    @property
    def quiet(self) -> bool:
        """Whether the peer may be gone."""
        return self._keep_alive.quiet

    @property
    def awaits_reply(self) -> bool:
        """Whether the peer was silent and has not answered the PING that followed."""
        return self._keep_alive.is_awaited

    @property
    def has_answered(self) -> bool:
        """Whether it ever answered."""
        return self._streams.answers > 0

    def ask_for_reply(self) -> None:
        """Give no stream until the peer has sent something; drop the connection if it stays silent."""
        self._keep_alive.ask()

    def take(self, user: int) -> None:
        """Take a stream; `call` uses it, `give_back` returns it."""
        self._capacity.take()
        self.users[user] += 1

    def give_back(self, user: int) -> None:
        """Return a stream that was not used."""
        self._capacity.give_back()
        self._leave(user)
        self._changed()

    async def call(self, user: int, headers: list[HeaderTuple], body: bytes) -> Response:
        """Use a taken stream for at most one call; raises Unavailable, as NOT_SENT where none was made."""
        try:
            await self._wait_for_window(len(body))
        except BaseException:
            self.give_back(user)
            raise
        self._capacity.use(len(body))
        try:
            return await self._start(headers, body)
        finally:
            self._leave(user)

    def retire(self, why: str) -> None:
        """Start no more calls; close after the last answer."""
        if self._retired is None:
            self._retired, self.ended_with = why, frozenset(self.users)
            log.info("connection retired", reason=why, in_flight=len(self._streams.calls))
        self._changed()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer."""
        self._transport = cast(asyncio.Transport, transport)
        self._keep_alive = KeepAlive(within=ALIVE_WITHIN, send_ping=self._ping, on_death=self._die)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Process the peer's frames."""
        if not self._open:
            return
        self._keep_alive.note_reply()
        try:
            self._streams.receive(data)
        except OddFrame as error:  # by the RFC the connection ends at once; here other calls are answered first
            log.warning("connection broke the protocol", error=str(error))
            self.retire("protocol_error")
        except BrokenProtocol as error:
            log.warning("connection broke the protocol", error=str(error))
            self._drop("protocol_error")
            return
        except Exception as error:  # noqa: BLE001 -- whatever a peer causes, no call may wait for ever
            log.error("frame not understood", error=type(error).__name__)  # noqa: TRY400 (its text may hold the frame)
            self._drop("protocol_error")
            return
        if self._streams.greeted:
            self.ready.set()
        self._flush()
        self._changed()

    def eof_received(self) -> None:
        """Drop the connection: no answer can come, even if the peer still reads."""
        self._drop("connection_lost")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Fail what is in flight, and report the connection closed."""
        self._drop("connection_lost")
        if not self.closed.done():
            self.closed.set_result(None)

    def _leave(self, user: int) -> None:
        self.users[user] -= 1
        if not self.users[user]:
            del self.users[user]

    @property
    def _open(self) -> asyncio.Transport | None:
        return None if self._transport is None or self._transport.is_closing() else self._transport

    async def _wait_for_window(self, size: int) -> None:
        deadline = self._loop.time() + START_WITHIN
        while self._retired is None:
            if self._capacity.may_start(size):
                return
            await self._capacity.change(deadline)
        raise Unavailable(self._retired, Delivery.NOT_SENT)

    def _start(self, headers: list[HeaderTuple], body: bytes) -> asyncio.Future[Response]:
        call = Call(self._loop.create_future(), self._loop.time(), self._streams.answers, body)
        self._streams.start(headers, call)
        if not self._flushing:  # one write for all calls that start in this turn of the loop
            self._flushing = True
            self._loop.call_soon(self._flush)
        self._keep_alive.note_request()
        if self._watch is None:
            self._check_later()
        if self._streams.going_away:
            self.retire("stream_ids_used_up")
        return call.answer

    def _flush(self) -> None:
        self._flushing = False
        transport = self._open
        if transport and (outgoing := self._streams.outgoing()):
            transport.write(outgoing)
            if transport.get_write_buffer_size() > MAX_UNREAD:
                self._drop("reads_nothing")

    def _check_later(self, *, decides: bool = False) -> None:
        after = STOOD_STILL if decides else self._timeout / 20
        self._watch = self._loop.call_later(after, self._check_calls, self._loop.time() + after, decides)

    def _check_calls(self, at: float, decides: bool) -> None:
        self._watch = None
        if self._loop.time() - at > STOOD_STILL and not decides:  # answers that have come may not be read yet
            self._check_later(decides=True)
            return
        while self._streams.calls:
            stream_id, oldest = next(iter(self._streams.calls.items()))
            age = self._loop.time() - oldest.sent_at
            if age < self._timeout:
                self._check_later()
                return
            self._expire(stream_id)

    def _expire(self, stream_id: int) -> None:
        answers_before = self._streams.calls[stream_id].answers_before
        self._streams.give_up(stream_id, "answer_timeout")
        self._flush()
        if self._streams.answers == answers_before:
            self.retire("answers_nothing")  # though it may still answer PINGs, as seen in the field
        else:
            self._keep_alive.ask()  # it may be silent since its last answer
        self._changed()

    def _ping(self) -> None:
        if self._open:
            self._streams.ping()
            self._flush()

    def _die(self) -> None:
        self._drop("peer_is_dead")

    def _drop(self, why: str) -> None:
        """Cut the connection at once; calls in flight may have been processed or not."""
        if self._retired is None:
            self._retired, self.ended_with = why, frozenset(self.users)
        self._keep_alive.stop()
        if self._open:
            self._open.abort()
        self.ready.set()
        self._streams.fail_all(why)
        self._changed()

    def _changed(self) -> None:
        """Let waiting calls look again, close after the last answer, and notify the pool."""
        if self._streams.going_away and self._retired is None:
            self.retire("goaway")
            return
        self._capacity.changed()
        if self._retired and not self._streams.calls and (transport := self._open):
            self._streams.send_goaway()
            self._flush()
            transport.close()
            self._loop.call_later(1.0, transport.abort)  # a peer that does not read cannot keep it open
        self._on_change()
