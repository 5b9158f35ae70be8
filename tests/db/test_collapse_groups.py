"""A line costs a claim the same however many pushes it ever had: everybody in its batch would wait for it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db import collapse_groups, push_tasks
from db.engine import Sessions, make_engine, make_sessions
from db.models.people import DeviceToken
from db.models.pushes import PushAttempt
from db.push_tasks import DueMessage, Update
from domain.kinds import Kind
from domain.last_check import CollapseGroupUse
from domain.push import TaskState
from operations import redrive as redrives
from tests.conftest import NewDatabase

EVER = 20_000  # pushes of one line
MAX_READ = 40  # rows, for one push
IN_FLIGHT = timedelta(seconds=16)
LINE = "conversation/1"


@pytest.fixture(scope="module")
async def sessions(new_database: NewDatabase) -> AsyncIterator[Sessions]:
    """A database of this module's own, whose statistics are those of its rows."""
    engine = make_engine(await new_database("screen_lines"))
    yield make_sessions(engine)
    await engine.dispose()


def _now() -> datetime:
    return datetime.now(UTC)


async def phone(db: AsyncSession) -> DeviceToken:
    """Register a phone."""
    device = DeviceToken(
        user_id="alice",
        installation_id=uuid4(),
        provider="apns",
        environment="production",
        token=str(uuid4()),
        active=True,
        registered_at=_now(),
        last_seen_at=_now(),
    )
    db.add(device)
    await db.flush()
    return device


_PUSHES = text("""
    INSERT INTO push_tasks (task_id, kind, user_id, installation_id, device_id, provider, environment, conversation_id,
                            message_id, collapse_key, due_at, attempt_count, state, last_reason, expires_at,
                            accepted_at, settled_at, opened_at)
    SELECT gen_random_uuid(), 'message', user_id, installation_id, id, provider, environment, installation_id,
           gen_random_uuid(), :line, now() + CAST(:due AS interval) * n, 1, CAST(:state AS text), 'superseded',
           now() + interval '1 day', CASE WHEN CAST(:state AS text) = 'accepted' THEN now() END,
           now() + CAST(:settled AS interval) * n, CASE WHEN CAST(:count AS int) > 1 THEN now() END
      FROM device_tokens CROSS JOIN generate_series(1, CAST(:count AS int)) AS n
     WHERE id = :device
    RETURNING task_id
""")


async def push(
    db: AsyncSession, device: DeviceToken, state: str, *, due: float = 0, settled: float | None = None, count: int = 1
) -> UUID:
    """Put pushes into the phone's line, due and settled so many seconds from now; gives one of them."""
    values = {
        "device": device.id,
        "line": LINE,
        "state": state,
        "due": timedelta(seconds=due),
        "settled": None if settled is None else timedelta(seconds=settled),
        "count": count,
    }
    task_ids: Sequence[UUID] = (await db.scalars(_PUSHES, values)).all()
    return task_ids[0]


async def call(db: AsyncSession, task_id: UUID, *, began: float) -> None:
    """Let a push be called for since so many seconds."""
    db.add(PushAttempt(attempt_id=uuid4(), task_id=task_id, number=1, started_at=_now() + timedelta(seconds=began)))
    await db.flush()


Around = Callable[[AsyncSession, DeviceToken], Awaitable[object]]


async def newer_withdrawn_while_called(db: AsyncSession, device: DeviceToken) -> None:
    await call(db, await push(db, device, "withdrawn", due=1, settled=-1), began=-2)


async def older_called(db: AsyncSession, device: DeviceToken) -> None:
    await call(db, await push(db, device, "pending", due=-1), began=-2)


async def older_called_at_an_odd_instant(db: AsyncSession, device: DeviceToken) -> None:
    task_id = await push(db, device, "pending", due=-1)
    await call(db, task_id, began=0)
    await db.execute(text("UPDATE push_attempts SET started_at = 'infinity' WHERE task_id = :id"), {"id": task_id})


async def newer_lost(db: AsyncSession, device: DeviceToken) -> None:
    await call(db, await push(db, device, "pending", due=1), began=-20)


async def read_meanwhile(db: AsyncSession, device: DeviceToken) -> None:
    await push(db, device, "accepted", due=1, settled=-1)
    await db.execute(text("UPDATE push_tasks SET synced_at = now() WHERE state = 'accepted'"))


FREE = CollapseGroupUse(newer_begun=False, newer_waits=False, call_under_way=False)
AROUND: dict[str, tuple[Around, CollapseGroupUse]] = {
    "nothing": (lambda db, device: push(db, device, "pending", due=-5), FREE),
    "an older one was accepted": (lambda db, device: push(db, device, "accepted", due=-1, settled=-1), FREE),
    "a newer one was accepted": (
        lambda db, device: push(db, device, "accepted", due=1, settled=-1),
        CollapseGroupUse(newer_begun=True, newer_waits=False, call_under_way=False),
    ),
    "a newer one was accepted and read": (read_meanwhile, FREE),
    "a newer one waits": (
        lambda db, device: push(db, device, "pending", due=1),
        CollapseGroupUse(newer_begun=False, newer_waits=True, call_under_way=False),
    ),
    "a newer one is dead": (lambda db, device: push(db, device, "dead", due=1, settled=-1), FREE),
    "an older one is called for": (
        older_called,
        CollapseGroupUse(newer_begun=False, newer_waits=False, call_under_way=True),
    ),
    "an older one's call began at an odd instant": (older_called_at_an_odd_instant, FREE),
    "a newer one's call was lost": (
        newer_lost,
        CollapseGroupUse(newer_begun=False, newer_waits=True, call_under_way=False),
    ),
    "a newer one was withdrawn while it is called for": (
        newer_withdrawn_while_called,
        CollapseGroupUse(newer_begun=True, newer_waits=False, call_under_way=True),
    ),
}


@pytest.mark.parametrize("around", AROUND)
async def test_what_else_goes_to_a_line(sessions: Sessions, around: str) -> None:
    others, line = AROUND[around]
    async with sessions() as db:
        device = await phone(db)
        task_id = await push(db, device, "pending")
        await others(db, device)

        seen = await collapse_groups.seen(db, [task_id], IN_FLIGHT)

    assert seen == {task_id: line}


@pytest.mark.parametrize("sounded_at", ["infinity", "-infinity", "2126-01-01"])
async def test_a_line_that_sounded_at_an_odd_instant_rings(sessions: Sessions, sounded_at: str) -> None:
    async with sessions() as db:
        device = await phone(db)
        task_id = await push(db, device, "pending")
        odd = "INSERT INTO collapse_groups (installation_id, collapse_key, sounded_at)"
        values = {"id": device.installation_id, "line": LINE, "at": sounded_at}
        await db.execute(text(f"{odd} VALUES (:id, :line, CAST(CAST(:at AS text) AS timestamptz))"), values)

        seen = await collapse_groups.seen(db, [task_id], IN_FLIGHT)

    assert not seen[task_id].has_sounded


@pytest.mark.parametrize("at", ["infinity", "2126-01-01"])
async def test_a_line_whose_last_push_was_planned_or_called_at_an_odd_instant_is_free(
    sessions: Sessions, at: str
) -> None:
    async with sessions() as db:
        device = await phone(db)
        await call(db, await push(db, device, "pending", due=-1), began=0)
        await collapse_groups.note_planned(db, LINE, {device.installation_id: 9})
        for change in (
            "UPDATE push_attempts SET started_at = CAST(CAST(:at AS text) AS timestamptz)",
            "UPDATE collapse_groups SET planned_at = CAST(CAST(:at AS text) AS timestamptz)",
        ):
            await db.execute(text(change), {"at": at})
        message = DueMessage(uuid4(), Kind.MESSAGE, uuid4(), None, LINE, _now(), _now(), False)

        standings = await collapse_groups.standings(db, message, [device.installation_id], _now(), IN_FLIGHT)

    standing = standings[device.installation_id]
    assert (standing.taken, standing.planned_at) == (False, None)


async def test_no_question_about_a_line_reads_what_it_ever_held(sessions: Sessions) -> None:
    async with sessions() as db:
        device = await phone(db)
        for state, due, settled in (
            ("accepted", -1, -20),
            ("withdrawn", 1, -20),
            ("withdrawn", -1, -20),
            ("dead", 1, -20),
        ):
            await push(db, device, state, due=due, settled=settled, count=EVER // 4)
        task_id = await push(db, device, "pending")
        await db.execute(text("ANALYZE push_tasks"))
        message = DueMessage(uuid4(), Kind.MESSAGE, uuid4(), None, LINE, _now() + timedelta(days=1), _now(), False)
        asked: dict[str, Callable[[], Awaitable[object]]] = {
            "the check": lambda: collapse_groups.seen(db, [task_id], IN_FLIGHT),
            "the plan": lambda: collapse_groups.standings(db, message, [device.installation_id], _now(), IN_FLIGHT),
            "the outcome": lambda: push_tasks.apply(db, [Update(task_id, TaskState.ACCEPTED, None)]),
            "the revival": lambda: redrives.revive(db, device),
        }

        read = {name: await _rows_read(db, question) for name, question in asked.items()}

    assert {name: rows for name, rows in read.items() if rows > MAX_READ} == {}


async def _rows_read(db: AsyncSession, question: Callable[[], Awaitable[object]]) -> int:
    """Count the rows that a question of this transaction reads from tables."""
    count = text("SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables")
    before = (await db.execute(count)).scalar_one()
    await question()
    return int((await db.execute(count)).scalar_one() - before)
