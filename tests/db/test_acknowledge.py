"""An acknowledgement costs what it passes, not what its installation ever got, and that is bounded."""

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession

from db import log
from db.engine import Sessions, make_engine, make_sessions
from tests.conftest import NewDatabase

EVER = 5_000  # items of the log, with a push each
PAGE = 500  # items that one acknowledgement may pass
MAX_READ = 6 * 2 * PAGE  # rows of tables and indexes: of either end each item, and its push a few times
MAX_STATEMENTS = 7


@pytest.fixture(scope="module")
async def sessions(new_database: NewDatabase) -> AsyncIterator[Sessions]:
    """A database of this module's own, whose statistics are those of its rows."""
    engine = make_engine(await new_database("acknowledge"))
    yield make_sessions(engine)
    await engine.dispose()


_PHONE = text("""
    INSERT INTO device_tokens (user_id, installation_id, provider, environment, token, active, registered_at,
                               last_seen_at)
    VALUES (CAST(:id AS text), CAST(:id AS uuid), 'apns', 'production', CAST(:id AS text), true, now(), now())
    RETURNING id
""")
_LOG = text("""
    WITH message AS (
        INSERT INTO messages (id, kind, conversation_id)
        SELECT gen_random_uuid(), 'reminder', gen_random_uuid() FROM generate_series(1, CAST(:count AS int))
        RETURNING id
    ), item AS (
        INSERT INTO log_items (user_id, seq, message_id)
        SELECT CAST(:user AS text), row_number() OVER (), id FROM message
        RETURNING seq, message_id
    )
    INSERT INTO push_tasks (task_id, kind, user_id, installation_id, device_id, provider, environment, conversation_id,
                            message_id, collapse_key, due_at, attempt_count, state, expires_at, accepted_at)
    SELECT gen_random_uuid(), 'reminder', :user, CAST(:user AS uuid), :device, 'apns', 'production', message_id,
           message_id, seq, now(), 1, CASE WHEN seq % 2 = 0 THEN 'accepted' ELSE 'pending' END,
           now() + interval '1 day', CASE WHEN seq % 2 = 0 THEN now() END
      FROM item
""")


async def phone(db: AsyncSession) -> UUID:
    """Give somebody a phone with a long log, of which nothing is read; user and installation have one id."""
    installation_id = uuid4()
    device_id = (await db.execute(_PHONE, {"id": str(installation_id)})).scalar_one()
    await db.execute(_LOG, {"user": str(installation_id), "device": device_id, "count": EVER})
    for table in ("log_items", "push_tasks", "messages"):
        await db.execute(text(f"ANALYZE {table}"))
    return installation_id


async def unsettled(db: AsyncSession, installation_id: UUID) -> list[int]:
    """List the items whose push does not know yet that it was read."""
    query = (
        "SELECT i.seq FROM push_tasks t JOIN log_items i USING (message_id, user_id)"
        " WHERE t.installation_id = :id AND t.synced_at IS NULL ORDER BY i.seq"
    )
    return list(await db.scalars(text(query), {"id": installation_id}))


async def test_of_a_leap_both_ends_are_settled_at_once_and_the_rest_by_what_follows(sessions: Sessions) -> None:
    async with sessions() as db:
        mine = await phone(db)

        await log.acknowledge(db, str(mine), mine, EVER - 1)
        after_one = await unsettled(db, mine)
        await log.acknowledge(db, str(mine), mine, EVER - 1)  # as an app does that got no answer
        after_two = await unsettled(db, mine)
        for _ in range(EVER // PAGE):
            await log.acknowledge(db, str(mine), mine, 1)
        rest = await unsettled(db, mine)
        ends = text(
            "SELECT DISTINCT state, last_reason, settled_at IS NULL FROM push_tasks WHERE installation_id = :id"
        )
        states = {tuple(row) for row in await db.execute(ends, {"id": mine})}
        position = (await db.execute(text("SELECT seq FROM sync_positions"))).scalar_one()

    assert after_one == [*range(PAGE + 1, EVER - PAGE), EVER]
    assert after_two == [*range(2 * PAGE + 1, EVER - PAGE), EVER]
    assert rest == [EVER]
    assert states == {("accepted", None, True), ("withdrawn", "synced", False)}
    assert position == EVER - 1


async def test_no_acknowledgement_reads_more_than_it_passes_and_none_more_than_a_bound(sessions: Sessions) -> None:
    async with sessions() as db:
        mine = await phone(db)

        def reads(seq: int) -> Awaitable[tuple[int, int]]:
            return _cost(db, lambda: log.acknowledge(db, str(mine), mine, seq))

        first, again, page, leap = [await reads(seq) for seq in (1, 1, 101, EVER)]

    assert first[0] < 20
    assert again[0] < 5
    assert page[0] < 100 * 6
    assert leap[0] < MAX_READ
    assert max(statements for _, statements in (first, again, page, leap)) <= MAX_STATEMENTS


async def _cost(db: AsyncSession, act: Callable[[], Awaitable[object]]) -> tuple[int, int]:
    """Count the rows that this reads from tables, and its statements."""
    count = text("SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables")
    engine: Engine = db.get_bind()  # type: ignore[assignment] # of a session that no connection was given to
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    before = (await db.execute(count)).scalar_one()
    event.listen(engine, "before_cursor_execute", note)
    try:
        await act()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return int((await db.execute(count)).scalar_one() - before), len(statements)
