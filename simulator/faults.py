"""The faults in force, and what they do to one push."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from simulator import fault_kinds as kinds
from simulator.http.exchange import (
    Answer,
    Exchange,
    LastStream,
    Shutdown,
    SimulatedEnvironment,
    SimulatedProvider,
    StreamsInFlight,
)
from simulator.wire import WireRequest

_INTERNAL_ERROR = 2  # RFC 9113
_HTML = b"<!DOCTYPE html>\n<html><head><title>Error</title></head><body><h1>Bad Gateway</h1></body></html>\n"


class ReceivedPush(Protocol):
    """One push that a provider has received."""

    exchange: Exchange
    request: WireRequest

    def processed(self) -> Answer:
        """Check it and hand it to its phone; gives the answer of the real provider."""
        ...

    def accepted(self, message_id: str) -> Answer:
        """Give the answer that it was accepted under this id."""
        ...

    def error(self, error: kinds.Error) -> Answer:
        """Give a scripted error in this provider's form."""
        ...


class ActiveFault:
    """A fault in force, and how often it struck."""

    def __init__(self, number: int, fault: kinds.Fault) -> None:
        self.id = f"fault-{number}"
        self.fault = fault
        self.seen = 0
        self.struck = 0
        self._random = random.Random(fault.seed)  # noqa: S311 (repeatable on purpose)
        self._from = time.monotonic() + fault.after_seconds
        self._until = None if fault.for_seconds is None else self._from + fault.for_seconds

    @property
    def is_over(self) -> bool:
        """Spent or timed out."""
        is_spent = self.fault.count is not None and self.struck >= self.fault.count
        return is_spent or (self._until is not None and time.monotonic() >= self._until)

    @property
    def is_in_force(self) -> bool:
        """Begun and not over."""
        return time.monotonic() >= self._from and not self.is_over

    @property
    def ends_in(self) -> float | None:
        """Seconds until its time is over; None: it has no end."""
        return None if self._until is None else self._until - time.monotonic()

    def concerns(self, provider: SimulatedProvider, environment: SimulatedEnvironment) -> bool:
        """Whether it is about this provider."""
        return self.fault.provider is provider and self.fault.environment in {None, environment}

    def strikes(self, request: WireRequest) -> bool:
        """Whether it hits this push; counts it if so."""
        fault = self.fault
        if not self.concerns(request.provider, request.environment):
            return False
        if fault.token not in {None, request.token} or fault.app not in {None, request.app}:
            return False
        return self.happens()

    def happens(self) -> bool:
        """Whether it strikes a request that it concerns; counts it if so."""
        fault = self.fault
        if not self.is_in_force:
            return False
        self.seen += 1
        if self.seen <= fault.skip or (fault.share < 1 and self._random.random() >= fault.share):
            return False
        self.struck += 1
        return True


class Faults:
    """The faults in force, oldest first; the first that strikes decides."""

    def __init__(self) -> None:
        self._faults: list[ActiveFault] = []
        self._count = 0
        self._late: set[Callable[[], None]] = set()  # each gives an answer that is late on purpose
        self.on_change: Callable[[ActiveFault | None], None] = lambda _: None

    def __iter__(self) -> Iterator[ActiveFault]:
        return iter(list(self._faults))

    def add(self, **fields: object) -> ActiveFault:
        """Put a fault in force; the fields are those of `POST /faults`. Raises pydantic.ValidationError."""
        fault = kinds.FAULTS.validate_python(fields)
        self._count += 1
        active = ActiveFault(self._count, fault)
        self._faults.append(active)
        self.on_change(active)
        return active

    def remove(self, fault_id: str) -> bool:
        """End one fault; False when there is none."""
        remaining = [active for active in self._faults if active.id != fault_id]
        is_found = len(remaining) < len(self._faults)
        self._faults = remaining
        self.on_change(None)
        return is_found

    def clear(self) -> None:
        """End every fault; late answers come now."""
        self._faults.clear()
        for give in tuple(self._late):
            give()
        self.on_change(None)

    def answer(self, push: ReceivedPush) -> None:
        """Answer a push as the real provider would, or as the first fault that strikes it says."""
        for active in self._faults:
            if isinstance(active.fault, kinds.PushFault) and active.strikes(push.request):
                _apply(active.fault, push, self._late)
                return
        _answer(push, push.processed())

    def oauth(self) -> kinds.OauthDown | None:
        """Find the fault of this access token request; None where there is none."""
        for active in self._faults:
            if isinstance(active.fault, kinds.OauthDown) and active.happens():
                return active.fault
        return None


def _answer(push: ReceivedPush, answer: Answer) -> None:
    """Send an answer, and record whether the client still listened."""
    if push.exchange.connection.answer(push.exchange, answer):
        push.request.status = answer.status
        push.request.reason = answer.reason
    else:
        push.request.reason = "nobody_listens"


def _answer_late(push: ReceivedPush, delay: float, late: set[Callable[[], None]]) -> None:
    """Send the answer after so many seconds, or when it is called from among the late ones."""
    answer = push.processed()

    def give() -> None:
        timer.cancel()
        late.discard(give)
        _answer(push, answer)

    timer = asyncio.get_running_loop().call_later(delay, give)
    late.add(give)


def _apply(fault: kinds.PushFault, push: ReceivedPush, late: set[Callable[[], None]]) -> None:
    match fault:
        case kinds.AnswerFault():
            _answer(push, push.error(fault))
        case kinds.SplitBody():
            _answer(push, _split(push.error(fault)))
        case kinds.AcceptThenFail():
            push.processed()
            _answer(push, push.error(fault))
        case kinds.EmptyBody() | kinds.Html():
            _answer(push, _as_a_proxy(fault))
        case kinds.Slow():
            _answer_late(push, fault.delay, late)
        case kinds.GoAway():
            _send_goaway(fault, push)
        case kinds.CutAnswer():
            _cut_answer(fault, push)
        case kinds.OtherId():
            answer = push.processed()
            _answer(push, push.accepted(fault.id) if answer.status == 200 else answer)
        case kinds.Silent() | kinds.Reset() | kinds.Close() | kinds.Freeze() | kinds.BrokenFrame():
            _interrupt(fault, push)


def _as_a_proxy(fault: kinds.EmptyBody | kinds.Html) -> Answer:
    if isinstance(fault, kinds.EmptyBody):
        return Answer(fault.status, "empty_body")
    return Answer(fault.status, "html", ((b"content-type", b"text/html; charset=UTF-8"),), (_HTML,))


def _interrupt(
    fault: kinds.Silent | kinds.Reset | kinds.Close | kinds.Freeze | kinds.BrokenFrame, push: ReceivedPush
) -> None:
    push.request.reason = fault.fault
    if fault.processed:
        push.processed()
    connection = push.exchange.connection
    match fault:
        case kinds.Silent():
            pass
        case kinds.Reset():
            connection.reset(push.exchange, fault.code)
        case kinds.Close():
            connection.abort()
        case kinds.Freeze():
            connection.freeze()
        case kinds.BrokenFrame():
            connection.send_frame(push.exchange, fault.type, bytes(fault.size))


def _cut_answer(fault: kinds.CutAnswer, push: ReceivedPush) -> None:
    push.request.reason = fault.fault
    answer = push.processed() if fault.status is None else Answer(fault.status, None, (), (_HTML,))
    connection = push.exchange.connection
    connection.begin_answer(push.exchange, answer)
    match fault.by:
        case "reset":
            connection.reset(push.exchange, _INTERNAL_ERROR)
        case "close":
            connection.abort()


def _send_goaway(fault: kinds.GoAway, push: ReceivedPush) -> None:
    push.request.reason = fault.fault
    answer = push.processed() if fault.processed else None
    debug = b"" if fault.reason is None else json.dumps({"reason": fault.reason}).encode()
    in_flight = StreamsInFlight.ANSWERED if fault.answer_in_flight else StreamsInFlight.DROPPED
    last = LastStream.THE_ONE_BEFORE if answer is None else LastStream.THIS_ONE
    push.exchange.connection.goaway(push.exchange, Shutdown(fault.code, debug, in_flight), last)
    if answer is not None and fault.answer_in_flight:
        _answer(push, answer)


def _split(answer: Answer) -> Answer:
    body = b"".join(answer.chunks)
    half = len(body) // 2
    return Answer(answer.status, answer.reason, answer.headers, (body[:half], b"", body[half:], b""))
