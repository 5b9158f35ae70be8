"""What one neighbour does: one person, one phone, one row, or one odd answer, while others' reminders fall due."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from simulator import Simulator
from simulator.faults import ActiveFault
from simulator.http.exchange import SimulatedEnvironment, SimulatedProvider
from simulator.phones import PhoneState
from tests.bursts import Request, burst
from tests.neighbours.honest import DUE_IN
from tests.stack import Phone, Stack, User, android, eventually, iphone, uncommitted
from tests.talk import conversation_of, post, posted

Noise = Callable[[Stack, Simulator], AbstractAsyncContextManager[None]]
SOONER = DUE_IN - 0.5  # seconds; the neighbour's reminders come first
NOTICED = DUE_IN - 1.0  # seconds; a connection has been silent for so long by then that nobody else joins it
FOREVER = timedelta(hours=1)


@asynccontextmanager
async def all_is_quiet(_: Stack, __: Simulator) -> AsyncIterator[None]:
    yield


# One person's phones: a fast due just before everybody else's, and answers that are theirs alone.


def _one_persons(
    new_phone: Callable[[], Phone], phones: int, name: str, *, due_in: float = SOONER, **fault: Any
) -> Noise:
    @asynccontextmanager
    async def noise(stack: Stack, simulator: Simulator) -> AsyncIterator[None]:
        theirs = [new_phone() for _ in range(phones)]
        faults = [simulator.faults.add(provider=each.provider, token=each.token, **fault) for each in theirs]
        await _reminded(stack.user(), theirs, due_in=due_in)
        async with _Struck(faults, least=1):
            yield

    noise.__name__ = name
    return noise


@asynccontextmanager
async def six_people_have_iphones_behind_fcm_without_a_key(stack: Stack, simulator: Simulator) -> AsyncIterator[None]:
    for phone in (phones := [android() for _ in range(6)]):
        simulator.faults.add(provider="fcm", token=phone.token, fault="answer", errorCode="THIRD_PARTY_AUTH_ERROR")
    await asyncio.gather(*(_reminded(stack.user(), [phone]) for phone in phones))
    yield


@asynccontextmanager
async def one_person_registers_25_invented_tokens(stack: Stack, simulator: Simulator) -> AsyncIterator[None]:
    for phone in (phones := [iphone() for _ in range(25)]):
        simulator.phones.declare(
            phone.token, SimulatedProvider.APNS, SimulatedEnvironment.SANDBOX
        )  # so a BadDeviceToken
    await _reminded(stack.user(), phones)
    yield


@asynccontextmanager
async def one_persons_400_reminders_are_due_at_the_same_instant(stack: Stack, _: Simulator) -> AsyncIterator[None]:
    user = stack.user()
    await user.register(*(iphone() for _ in range(20)))
    await asyncio.gather(*(user.start_fast(due_in=DUE_IN) for _ in range(20)))
    yield


@asynccontextmanager
async def one_persons_400_calls_are_never_answered(stack: Stack, simulator: Simulator) -> AsyncIterator[None]:
    for phone in (phones := [android() for _ in range(20)]):
        simulator.faults.add(provider="fcm", token=phone.token, fault="silent")
    user = stack.user()
    await user.register(*phones)
    await asyncio.gather(*(user.start_fast(due_in=SOONER) for _ in range(20)))
    yield


@asynccontextmanager
async def one_person_uninstalled_25_times(stack: Stack, simulator: Simulator) -> AsyncIterator[None]:
    user, phones = stack.user(), [iphone() for _ in range(25)]
    await user.register(*phones)
    for phone in phones:
        known = simulator.phones.declare(phone.token, SimulatedProvider.APNS, SimulatedEnvironment.PRODUCTION)
        simulator.phones.change(known, PhoneState.UNINSTALLED)
    await user.start_fast(due_in=SOONER)
    yield


# What a provider does to the connection that one person's call is on.
_ENDINGS: Sequence[dict[str, Any]] = (
    {"fault": "freeze"},
    {"fault": "close", "processed": True},
    {"fault": "goaway", "answer_in_flight": False},
    {"fault": "cut_answer", "by": "close"},
    {"fault": "broken_frame", "type": 0, "size": 9},  # DATA before an answer
    {"fault": "broken_frame", "type": 1, "size": 1},  # HEADERS
    {"fault": "broken_frame", "type": 4, "size": 5},  # SETTINGS
    {"fault": "broken_frame", "type": 7, "size": 3},  # GOAWAY
    {"fault": "broken_frame", "type": 8, "size": 4},  # WINDOW_UPDATE of nought
    {"fault": "broken_frame", "type": 9, "size": 9},  # CONTINUATION
)


@asynccontextmanager
async def one_persons_calls_end_their_connections_in_every_way(
    stack: Stack, simulator: Simulator
) -> AsyncIterator[None]:
    phones = [iphone() for _ in _ENDINGS]
    faults = [
        simulator.faults.add(provider="apns", token=phone.token, **ending)
        for phone, ending in zip(phones, _ENDINGS, strict=True)
    ]
    await _reminded(stack.user(), phones)
    async with _Struck(faults, least=2):
        yield


@asynccontextmanager
async def three_people_are_refused_in_three_ways(stack: Stack, simulator: Simulator) -> AsyncIterator[None]:
    refusals = (
        {"status": 503, "reason": "ServiceUnavailable"},
        {"status": 500, "reason": "InternalServerError"},
        {"status": 403, "reason": "InvalidProviderToken"},
    )
    for phone, refusal in zip(phones := [iphone() for _ in refusals], refusals, strict=True):
        simulator.faults.add(provider="apns", token=phone.token, fault="answer", **refusal)
    await asyncio.gather(*(_reminded(stack.user(), [phone]) for phone in phones))
    yield


@asynccontextmanager
async def somebody_sends_200_bodies_and_never_ends_them(stack: Stack, _: Simulator) -> AsyncIterator[None]:
    user = stack.user()
    host, port = stack.http.base_url.host, stack.http.base_url.port
    head = f"PUT /v1/device-tokens/{uuid4()} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    more = f"Authorization: {user.headers['Authorization']}\r\nContent-Length: 60000\r\n\r\n"
    writers = [(await asyncio.open_connection(host, port))[1] for _ in range(200)]

    async def write() -> None:
        for writer in writers:
            writer.write((head + more).encode() + b"{" + b" " * 50_000)
        while True:
            await asyncio.sleep(0.5)
            for writer in writers:
                writer.write(b" ")

    try:
        async with _meanwhile(write):
            yield
    finally:
        for writer in writers:
            writer.close()


_never_answered = _one_persons(iphone, 20, "one_persons_calls_are_never_answered", fault="silent")
_PHONES = (
    _one_persons(iphone, 10, "one_persons_calls_freeze_their_connection", due_in=NOTICED, fault="freeze"),
    _one_persons(android, 10, "one_persons_android_calls_freeze_their_connection", due_in=NOTICED, fault="freeze"),
    _one_persons(iphone, 10, "one_persons_calls_cut_their_connection", fault="close", processed=True),
    _one_persons(android, 10, "one_persons_android_calls_cut_their_connection", fault="close"),
    _one_persons(iphone, 10, "one_persons_calls_are_the_last_on_their_connection", fault="goaway", processed=True),
    _one_persons(
        iphone,
        10,
        "one_person_is_told_to_wait_an_hour",
        fault="answer",
        status=429,
        reason="TooManyRequests",
        retry_after=3600,
    ),
    _one_persons(iphone, 10, "one_persons_calls_end_in_a_truncated_frame", fault="broken_frame"),
    _one_persons(iphone, 10, "one_persons_answers_have_odd_ids", fault="other_id", id="a NUL \0 is in here"),
    _one_persons(
        android,
        10,
        "one_persons_tokens_are_none",
        fault="answer",
        errorCode="INVALID_ARGUMENT",
        message="The registration token is not a valid FCM registration token",
    ),
    _one_persons(
        iphone,
        1,
        "a_provider_token_is_refused_once",
        fault="answer",
        status=403,
        reason="InvalidProviderToken",
        count=1,
    ),
    _one_persons(android, 1, "an_access_token_is_refused_once", fault="answer", errorCode="UNAUTHENTICATED", count=1),
    _one_persons(
        android,
        6,
        "one_persons_iphones_are_behind_fcm_without_a_key",
        fault="answer",
        errorCode="THIRD_PARTY_AUTH_ERROR",
    ),
    _one_persons(iphone, 20, "one_persons_phones_are_throttled", fault="answer", status=429, reason="TooManyRequests"),
    _one_persons(
        iphone, 20, "one_persons_calls_are_unavailable", fault="answer", status=503, reason="ServiceUnavailable"
    ),
    _one_persons(iphone, 20, "one_persons_calls_are_reset", fault="reset"),
    _one_persons(
        iphone, 20, "one_persons_calls_are_misconfigured", fault="answer", status=403, reason="InvalidProviderToken"
    ),
    _one_persons(iphone, 20, "one_persons_answers_make_no_sense", fault="answer", status=418, reason="IAmATeapot"),
    _one_persons(android, 20, "one_persons_answers_are_a_page", fault="html", status=200),
    _one_persons(
        android, 20, "one_persons_device_quota_is_spent", fault="answer", errorCode="QUOTA_EXCEEDED", quota="device"
    ),
)


# One row.


@asynccontextmanager
async def somebodys_push_tasks_are_locked(stack: Stack, _: Simulator) -> AsyncIterator[None]:
    async with _locked(stack, "SELECT 1 FROM push_tasks WHERE user_id = :user_id FOR UPDATE"):
        yield


@asynccontextmanager
async def somebodys_phones_are_locked(stack: Stack, _: Simulator) -> AsyncIterator[None]:
    async with _locked(stack, "SELECT 1 FROM device_tokens WHERE user_id = :user_id FOR UPDATE"):
        yield


@asynccontextmanager
async def somebodys_fast_is_locked(stack: Stack, _: Simulator) -> AsyncIterator[None]:
    async with _locked(stack, "SELECT 1 FROM fasting_sessions WHERE user_id = :user_id FOR UPDATE"):
        yield


@asynccontextmanager
async def somebodys_values_cannot_be_read(stack: Stack, _: Simulator) -> AsyncIterator[None]:
    user = stack.user()
    quiet = {"starts": "22:00", "ends": "06:00", "time_zone": "Europe/Berlin"}
    answer = await user.call("PUT", "/v1/notification-preferences", {"quiet_hours": quiet})
    assert answer.status_code == 200, answer.text
    await _reminded(user, [iphone(), android()])
    async with stack.sessions.begin() as db:
        for statement in (
            "UPDATE preferences SET quiet_time_zone = 'Mars/Olympus_Mons' WHERE user_id = :user_id",
            (
                r"UPDATE device_tokens SET locale = 'x@y', time_zone = 'GMT+99', public_key = '\x00'"
                " WHERE user_id = :user_id"
            ),
        ):
            await db.execute(text(statement), {"user_id": user.user_id})
    yield


# One caller.


@asynccontextmanager
async def somebody_patches_one_fast_400_times_at_the_due_instant(stack: Stack, _: Simulator) -> AsyncIterator[None]:
    user = stack.user()
    path = f"/v1/fasting-sessions/{await user.start_fast(due_in=FOREVER.total_seconds())}"
    changes: list[Request] = [(user, "PATCH", path, {"reminder_minutes": [number]}) for number in range(400)]

    async with burst(stack, changes) as send, _meanwhile(lambda: _later(DUE_IN, send)):
        yield


@asynccontextmanager
async def somebody_moves_a_goal_to_and_fro(stack: Stack, _: Simulator) -> AsyncIterator[None]:
    user = stack.user()
    await user.register(iphone(), android())
    session_id = await user.start_fast(due_in=SOONER)

    async def to_and_fro() -> None:
        while True:
            await user.move_goal(session_id, due_in=FOREVER.total_seconds())
            await user.move_goal(session_id, due_in=1.0)
            await asyncio.sleep(0.05)

    async with _meanwhile(to_and_fro):
        yield


@asynccontextmanager
async def two_people_write_without_a_pause_to_twenty(stack: Stack, _: Simulator) -> AsyncIterator[None]:
    people = [stack.user() for _ in range(20)]
    await asyncio.gather(*(user.register(iphone(), android()) for user in people))
    conversation_id = await conversation_of(*people)

    async def write(user: User) -> None:
        while True:
            await post(user, conversation_id)

    async with _meanwhile(lambda: _all_of(map(write, people[:2]))):
        yield


@asynccontextmanager
async def somebody_imports_3000_fasts(stack: Stack, _: Simulator) -> AsyncIterator[None]:
    imported = [
        (
            "INSERT INTO fasting_sessions (id, user_id, started_at, ends_at, status, reminder_minutes, scheduled_at,"
            " started_with, rev) SELECT gen_random_uuid(), 'imported', now(), now() + interval '1 day', 'active',"
            " ARRAY[1], now(), '{}', 1 FROM generate_series(1, 3000)"
        ),
        (
            "INSERT INTO outbox (subject_kind, subject_id, next_attempt_at) SELECT 'fasting_session', id, now()"
            " FROM fasting_sessions WHERE user_id = 'imported'"
        ),
    ]
    async with stack.sessions.begin() as db:
        for statement in imported:
            await db.execute(text(statement))
    try:
        yield
    finally:
        async with stack.sessions.begin() as db:
            gone = "DELETE FROM outbox WHERE subject_id IN (SELECT id FROM fasting_sessions WHERE user_id = 'imported')"
            await db.execute(text(gone))


NOISES: Sequence[Noise] = (
    six_people_have_iphones_behind_fcm_without_a_key,
    one_person_registers_25_invented_tokens,
    _never_answered,
    somebodys_push_tasks_are_locked,
    somebodys_values_cannot_be_read,
    somebody_patches_one_fast_400_times_at_the_due_instant,
    two_people_write_without_a_pause_to_twenty,
    somebody_imports_3000_fasts,
    all_is_quiet,
    one_persons_400_reminders_are_due_at_the_same_instant,
    one_persons_400_calls_are_never_answered,
    one_person_uninstalled_25_times,
    *_PHONES,
    one_persons_calls_end_their_connections_in_every_way,
    three_people_are_refused_in_three_ways,
    somebody_sends_200_bodies_and_never_ends_them,
    somebodys_phones_are_locked,
    somebodys_fast_is_locked,
    somebody_moves_a_goal_to_and_fro,
)


async def end_noise(stack: Stack, simulator: Simulator) -> None:
    """Cancel the fasts of a noise, and have pushes accepted: what a route's breaker has noted is forgotten then."""
    going_on = "SELECT id, user_id FROM fasting_sessions WHERE status = 'active' AND user_id <> 'imported'"
    fasts = await stack.rows(going_on)
    await asyncio.gather(*(stack.user(each.user_id).cancel(each.id) for each in fasts))
    await asyncio.gather(*(stack.finished(each.id) for each in fasts))  # calls in flight have ended then
    author, reader, phones = stack.user(), stack.user(), [iphone(), android()]
    await reader.register(*phones)
    await posted(author, await conversation_of(author, reader))
    for phone in phones:
        await simulator.phones.received(phone.token, within=60)


class _Struck:
    """Waits after a block that went well until so many faults struck: without noise nothing is proven."""

    def __init__(self, faults: Sequence[ActiveFault], *, least: int) -> None:
        self._faults, self._least = faults, least

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await eventually(self._have_struck)

    async def _have_struck(self) -> bool:
        return sum(bool(each.struck) for each in self._faults) >= self._least


async def _reminded(user: User, phones: Sequence[Phone], *, due_in: float = SOONER) -> None:
    await user.register(*phones)
    await user.start_fast(due_in=due_in)


@asynccontextmanager
async def _locked(stack: Stack, statement: str) -> AsyncIterator[None]:
    """Lock rows of somebody whose reminder is due just before everybody else's, once its pushes are planned."""
    user = stack.user()
    await user.register(iphone(), android())
    session_id = await user.start_fast(due_in=SOONER)
    await eventually(lambda: stack.tasks(session_id))
    async with uncommitted(stack, statement, user_id=user.user_id):
        yield


@asynccontextmanager
async def _meanwhile(act: Callable[[], Awaitable[Any]]) -> AsyncIterator[None]:
    acting = asyncio.ensure_future(act())
    try:
        yield
    finally:
        acting.cancel()
        with suppress(asyncio.CancelledError):
            await acting


async def _later(seconds: float, act: Callable[[], Awaitable[Any]]) -> None:
    await asyncio.sleep(seconds)
    await act()


async def _all_of(acts: Any) -> None:
    await asyncio.gather(*acts)
