"""Carrying out a fault on one push."""

import asyncio
import json
from typing import Protocol

from simulator.exchange import Answer, Exchange, Farewell, FarewellExtent, LastStream
from simulator.fault_kinds import (
    AcceptThenFail,
    AnswerFault,
    BrokenFrame,
    Close,
    CutAnswer,
    EmptyBody,
    Error,
    Freeze,
    GoAway,
    Html,
    OtherId,
    PushFault,
    Reset,
    Silent,
    Slow,
    SplitBody,
)
from simulator.wire import WireRequest

_INTERNAL_ERROR = 2  # RFC 9113
_HTML = b"<!DOCTYPE html>\n<html><head><title>Error</title></head><body><h1>Bad Gateway</h1></body></html>\n"


class Push(Protocol):
    """One push in the hands of its provider."""

    exchange: Exchange
    request: WireRequest

    def processed(self) -> Answer:
        """Check it and hand it to its phone; the honest answer."""
        ...

    def accepted(self, message_id: str) -> Answer:
        """Say that it was accepted under this id."""
        ...

    def error(self, error: Error) -> Answer:
        """Put a scripted error in this provider's form."""
        ...


def answer(push: Push, said: Answer) -> None:
    """Send an answer, and write down whether there was somebody to hear it."""
    if push.exchange.answer(said):
        push.request.status = said.status
        push.request.reason = said.reason
    else:
        push.request.reason = "nobody_listens"


def inflict(fault: PushFault, push: Push) -> None:
    """Let this push suffer."""
    match fault:
        case AnswerFault():
            answer(push, push.error(fault))
        case SplitBody():
            answer(push, _split(push.error(fault)))
        case AcceptThenFail():
            push.processed()
            answer(push, push.error(fault))
        case EmptyBody() | Html():
            answer(push, _as_a_proxy(fault))
        case Slow():
            said = push.processed()
            asyncio.get_running_loop().call_later(fault.delay, answer, push, said)
        case GoAway():
            _say_goodbye(fault, push)
        case CutAnswer():
            _cut_answer(fault, push)
        case OtherId():
            said = push.processed()
            answer(push, push.accepted(fault.id) if said.status == 200 else said)
        case Silent() | Reset() | Close() | Freeze() | BrokenFrame():
            _interrupt(fault, push)


def _as_a_proxy(fault: EmptyBody | Html) -> Answer:
    if isinstance(fault, EmptyBody):
        return Answer(fault.status, "empty_body")
    return Answer(fault.status, "html", ((b"content-type", b"text/html; charset=UTF-8"),), (_HTML,))


def _interrupt(fault: Silent | Reset | Close | Freeze | BrokenFrame, push: Push) -> None:
    push.request.reason = fault.fault
    if fault.processed:
        push.processed()
    match fault:
        case Silent():
            pass
        case Reset():
            push.exchange.reset(fault.code)
        case Close():
            push.exchange.abort()
        case Freeze():
            push.exchange.freeze()
        case BrokenFrame():
            push.exchange.utter(fault.type, bytes(fault.size))


def _cut_answer(fault: CutAnswer, push: Push) -> None:
    push.request.reason = fault.fault
    said = push.processed() if fault.status is None else Answer(fault.status, None, (), (_HTML,))
    push.exchange.begin_answer(said)
    match fault.by:
        case "reset":
            push.exchange.reset(_INTERNAL_ERROR)
        case "close":
            push.exchange.abort()


def _say_goodbye(fault: GoAway, push: Push) -> None:
    push.request.reason = fault.fault
    said = push.processed() if fault.processed else None
    debug = b"" if fault.reason is None else json.dumps({"reason": fault.reason}).encode()
    extent = FarewellExtent.ANSWER_IN_FLIGHT if fault.answer_in_flight else FarewellExtent.DROP_IN_FLIGHT
    last = LastStream.THE_ONE_BEFORE if said is None else LastStream.THIS_ONE
    push.exchange.goaway(Farewell(fault.code, debug, extent), last)
    if said is not None and fault.answer_in_flight:
        answer(push, said)


def _split(said: Answer) -> Answer:
    body = b"".join(said.chunks)
    half = len(body) // 2
    return Answer(said.status, said.reason, said.headers, (body[:half], b"", body[half:], b""))
