"""One HTTP/2 client connection: places, timeouts and signs of life. Each failure tells whether a call was processed."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import cast

import structlog
from hpack import HeaderTuple

from push.http2.frames import BrokenProtocol, OddFrame
from push.http2.streams import Call, Response, Streams
from push.sender import Delivery, NoRoom, Unavailable

QUIET_AFTER = 30.0  # seconds of silence after which a connection gives a sign of life before it is used

PING_EVERY = 3600.0  # seconds; Apple: check an idle connection once an hour

ANSWERS_WITHIN = 0.3  # seconds; Apple takes a tenth of that. One PING asks after calls that take longer

ALIVE_WITHIN = 1.0  # seconds in which a PING is answered, or the connection is given up

STOOD_STILL = 0.1  # seconds that a timer may be late before the process counts as held up


class KeepAlive:
    """Watches one connection."""

    def __init__(self, *, within: float, send_ping: Callable[[], None], on_death: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._within = within
        self._send_ping = send_ping
        self._on_death = on_death
        self._idle = self._loop.call_later(PING_EVERY, self._check_idle)
        self._verdict: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self.replied_at = self._loop.time()

    @property
    def is_awaited(self) -> bool:
        """Whether a sign of life is awaited."""
        return self._verdict is not None

    @property
    def quiet(self) -> bool:
        """Whether nothing was heard for so long that the peer may be gone."""
        return self._loop.time() - self.replied_at > QUIET_AFTER

    def note_reply(self) -> None:
        """Note a sign of life."""
        self.replied_at = self._loop.time()
        self._forget()

    def note_request(self) -> None:
        """Note that the peer was asked something; one that says nothing at all for too long is asked for a PING."""
        if not self._silence:
            self._silence = self._loop.call_later(ANSWERS_WITHIN, self.ask)

    def ask(self) -> None:
        """Demand a sign of life."""
        if not self._verdict:
            self._wait_for_life()
            self._send_ping()

    def stop(self) -> None:
        """Watch no longer."""
        self._idle.cancel()
        self._forget()

    def _forget(self) -> None:
        for timer in (self._verdict, self._silence):
            if timer:
                timer.cancel()
        self._verdict = self._silence = None

    def _wait_for_life(self) -> None:
        self._verdict = self._loop.call_later(self._within, self._decide, self._loop.time() + self._within)

    def _decide(self, at: float) -> None:
        if self._loop.time() - at > STOOD_STILL:  # what the peer said meanwhile may not be read yet
            self._wait_for_life()
        else:
            self._on_death()

    def _check_idle(self) -> None:
        if self.quiet:
            self.ask()
        self._idle = self._loop.call_later(PING_EVERY, self._check_idle)


MAX_IN_FLIGHT = 100  # more on one connection only lengthen the tail

LEAST_BODY, MAX_BODY = 512, 4096  # bytes of window set aside for a place whose body is not known yet


class ConnectionCapacity:
    """A place is taken first, and used or given back later. The peer may change its mind meanwhile."""

    def __init__(self, streams: Streams) -> None:
        self._loop = asyncio.get_running_loop()
        self._streams = streams
        self._taken = 0
        self._aside = LEAST_BODY  # as much as the largest bodies of late
        self._starters: list[asyncio.Future[None]] = []

    @property
    def free(self) -> int:
        """Places that can be taken, as far as limit and window go."""
        return 0 if self._lacks_window else self._limit - self._taken - len(self._streams.calls)

    @property
    def full(self) -> bool:
        """Whether another connection would help.

        At a limit of one it would not, since Apple lifts that after one success: unless the call under way is not
        answered. One phone whose calls hang would hold up everybody else's until they time out.
        """
        if self._limit > 1:
            return self._taken + len(self._streams.calls) >= self._limit or self._lacks_window
        oldest = next(iter(self._streams.calls.values()), None)
        return oldest is not None and self._loop.time() - oldest.sent_at >= ANSWERS_WITHIN

    @property
    def idle(self) -> bool:
        """Whether none is taken and no call is under way."""
        return not self._taken and not self._streams.calls

    def take(self) -> None:
        """Take a place."""
        self._taken += 1

    def give_back(self) -> None:
        """Return a place."""
        self._taken -= 1

    def use(self, size: int) -> None:
        """Turn a place into a call with a body of so many bytes."""
        self._taken -= 1
        self._aside = min(max(size, LEAST_BODY, self._aside - self._aside // 64), MAX_BODY)

    def may_start(self, size: int) -> bool:
        """Whether a call with a body of so many bytes may start now."""
        return len(self._streams.calls) < self._limit and self._streams.window >= size

    async def change(self, until: float) -> None:
        """Wait until `may_start` is worth another look; raises NoRoom when that takes too long by the loop's clock."""
        starter = self._loop.create_future()
        self._starters.append(starter)
        try:
            async with asyncio.timeout_at(until):
                await starter
        except TimeoutError:
            raise NoRoom("no_room_on_connection", Delivery.NOT_SENT) from None
        if self._loop.time() > until:  # the process stood still; whoever asked may have lost its leave by now
            raise NoRoom("no_room_on_connection", Delivery.NOT_SENT)

    def changed(self) -> None:
        """Let those who wait look again."""
        starters, self._starters = self._starters, []
        for starter in starters:
            if not starter.done():
                starter.set_result(None)

    @property
    def _limit(self) -> int:
        return min(self._streams.limit, MAX_IN_FLIGHT)

    @property
    def _lacks_window(self) -> bool:
        return self._streams.window < self._aside * (self._taken + 1)


log = structlog.get_logger()


MAX_UNREAD = 1 << 20  # bytes; calls alone cannot make so many, but a peer that asks and does not read can

START_WITHIN = 0.25  # seconds a call may wait for the peer's window; longer would age the caller's last check


class Connection(asyncio.Protocol):
    """Places are taken first and used (or given back) later, so that nothing waits between decision and call."""

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
        self.users: Counter[int] = Counter()  # places taken and calls under way, by user
        self.ended_with: frozenset[int] = frozenset()  # the users on it when its last call had started

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
        """Places that can be taken now."""
        return self._capacity.free if self.usable and not self._keep_alive.is_awaited else 0

    @property
    def full(self) -> bool:
        """Whether another connection would help. At a limit of one it would not: Apple lifts it after one success."""
        return self._capacity.full or (self._keep_alive.is_awaited and not self._capacity.idle)

    @property
    def is_stuck(self) -> bool:
        """Whether there is no room though nothing is under way: only the peer could make some."""
        return self.usable and self.room <= 0 and self._capacity.idle

    @property
    def quiet(self) -> bool:
        """Whether the peer may be gone."""
        return self._keep_alive.quiet

    @property
    def has_answered(self) -> bool:
        """Whether it ever answered."""
        return self._streams.answers > 0

    def ask_for_reply(self) -> None:
        """Give no place until the peer was heard; a peer that stays silent is dropped."""
        self._keep_alive.ask()

    def take(self, user: int) -> None:
        """Take a place; `call` uses it, `give_back` returns it."""
        self._capacity.take()
        self.users[user] += 1

    def give_back(self, user: int) -> None:
        """Return a place that was not used."""
        self._capacity.give_back()
        self._leave(user)
        self._changed()

    async def call(self, user: int, headers: list[HeaderTuple], body: bytes) -> Response:
        """Use a taken place for at most one call; raises Unavailable, of fate NOT_SENT where none was made."""
        try:
            await self._leave_to_start(len(body))
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
        """Say hello."""
        self._transport = cast(asyncio.Transport, transport)
        self._keep_alive = KeepAlive(within=ALIVE_WITHIN, send_ping=self._ping, on_death=self._die)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take the peer's frames in."""
        if not self._open:
            return
        self._keep_alive.note_reply()
        try:
            self._streams.receive(data)
        except OddFrame as error:  # by the book the connection ends at once; others' calls are answered first
            log.warning("connection broke the protocol", error=str(error))
            self.retire("protocol_error")
        except BrokenProtocol as error:
            log.warning("connection broke the protocol", error=str(error))
            self._drop("protocol_error")
            return
        except Exception as error:  # noqa: BLE001 -- whatever a peer can set off, no call may wait for what never comes
            log.error("frame not understood", error=type(error).__name__)  # noqa: TRY400 (its text may hold the frame)
            self._drop("protocol_error")
            return
        if self._streams.greeted:
            self.ready.set()
        self._flush()
        self._changed()

    def eof_received(self) -> None:
        """Nothing more will be answered, even if the peer still reads."""
        self._drop("connection_lost")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Nothing more will be heard."""
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

    async def _leave_to_start(self, size: int) -> None:
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
            self._watch = self._loop.call_later(self._timeout / 20, self._check_calls)
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

    def _check_calls(self) -> None:
        self._watch = None
        while self._streams.calls:
            stream_id, oldest = next(iter(self._streams.calls.items()))
            age = self._loop.time() - oldest.sent_at
            if age < self._timeout:
                self._watch = self._loop.call_later(self._timeout / 20, self._check_calls)
                return
            self._expire(stream_id)

    def _expire(self, stream_id: int) -> None:
        answers_before = self._streams.calls[stream_id].answers_before
        self._streams.give_up(stream_id, "answer_timeout")
        self._flush()
        if self._streams.answers == answers_before:
            self.retire("answers_nothing")  # though it may still answer pings: seen in the field
        else:
            self._keep_alive.ask()  # it may have fallen silent since its last answer
        self._changed()

    def _ping(self) -> None:
        if self._open:
            self._streams.ping()
            self._flush()

    def _die(self) -> None:
        self._drop("peer_is_dead")

    def _drop(self, why: str) -> None:
        """Cut the connection at once; whatever was in flight has an unknown fate."""
        if self._retired is None:
            self._retired, self.ended_with = why, frozenset(self.users)
        self._keep_alive.stop()
        if self._open:
            self._open.abort()
        self.ready.set()
        self._streams.fail_all(why)
        self._changed()

    def _changed(self) -> None:
        """Let waiting calls look again, close when all is said, and tell the pool."""
        if self._streams.going_away and self._retired is None:
            self.retire("goaway")
            return
        self._capacity.changed()
        if self._retired and not self._streams.calls and (transport := self._open):
            self._streams.send_goaway()
            self._flush()
            transport.close()
            self._loop.call_later(1.0, transport.abort)  # a peer that does not read cannot hold us
        self._on_change()
