"""The database's signals: right, cheap, and read by one worker at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import pytest
from sqlalchemy import text

from db.engine import Sessions, make_engine, make_sessions
from db.views import gates, signals
from db.views.gates import LATELY, Refusals, RefusedPushes
from db.views.signals import OutboxBacklog, Transfers
from domain.kinds import Kind
from domain.push import Environment, Provider, Route
from fleet.signals import FleetSignals
from push.registry import SenderRegistry
from tests.stack import eventually

APNS = Route(Provider.APNS, None, Environment.PRODUCTION)


@dataclass(frozen=True)
class Database:
    """A database of its own."""

    url: str
    sessions: Sessions

    async def run(self, *statements: str) -> None:
        """Change something."""
        async with self.sessions.begin() as db:
            for statement in statements:
                await db.execute(text(statement))


@pytest.fixture(scope="module")
async def _database(new_database: Callable[[str], Awaitable[str]]) -> AsyncIterator[Database]:
    url = await new_database("signals")
    engine = make_engine(url)
    yield Database(url, make_sessions(engine))
    await engine.dispose()


@pytest.fixture
async def database(_database: Database) -> Database:
    """The same, with nothing in it."""
    await _database.run(
        "TRUNCATE push_tasks, device_tokens, outbox, messages, brakes, workers, presences, leases CASCADE"
    )
    return _database


async def test_signals_tell_what_waits_where_and_for_how_long(database: Database) -> None:
    await database.run(
        _device(),
        _tasks(2, "pending", due="now() + interval '1 hour'"),
        _tasks(3, "pending", due="now() - interval '1 minute'"),
        _tasks(4, "pending", due="now() - interval '10 seconds'", reason="'Shutdown'", app="'an.app'"),
        _tasks(5, "dead", due="now() - interval '1 hour'"),
        _tasks(6, "dead", due="now() - interval '1 hour'", expires="now() + interval '1 hour'"),
        _tasks(7, "dead", due="now() - interval '3 days'"),
        _tasks(8, "withdrawn", due="now()"),
        "INSERT INTO outbox (subject_kind, subject_id, created_at, next_attempt_at)"
        " SELECT 'x', gen_random_uuid(), now() - interval '90 seconds', now() FROM generate_series(1, 9)",
        "INSERT INTO brakes (provider, environment, reason, token_errors, answers)"
        " VALUES ('apns', 'production', 'BadDeviceToken', 20, 20)",
        "INSERT INTO workers (worker_id, seen_at, gates) VALUES (gen_random_uuid(), now(), '{}')",
        "INSERT INTO presences (stream_id, user_id, installation_id, expires_at)"
        " VALUES (gen_random_uuid(), 'u', gen_random_uuid(), now() + interval '1 minute')",
    )

    async with database.sessions() as db:
        read = await signals.present(db)

    [of_app, of_default] = sorted(read.backlogs, key=lambda each: each.overdue, reverse=True)
    assert (of_app.route.app_id, of_app.kind) == ("an.app", Kind.REMINDER)
    assert (of_app.pending, of_app.overdue, of_app.retrying, of_app.behind_gate) == (4, 4, 4, 4)
    assert of_default.route == APNS
    assert (of_default.pending, of_default.overdue, of_default.retrying, of_default.behind_gate) == (5, 3, 0, 3)
    assert of_default.oldest_due_at is not None
    assert timedelta(seconds=60) < read.at - of_default.oldest_due_at < timedelta(seconds=90)
    [dead] = read.dead
    assert (dead.count, dead.unexpired) == (11, 6)
    assert read.outbox.count == 9
    assert read.brakes == (APNS,)
    assert (read.handoffs.count, read.workers, read.streams) == (0, 1, 1)
    assert read.transfers == Transfers(0, 0)


async def test_tokens_that_changed_hands_are_counted_and_the_most_that_one_user_took(database: Database) -> None:
    def taken(count: int, by: str, *, ago: str) -> str:
        return (
            "INSERT INTO device_token_events (device_id, event, taken_by, at)"
            f" SELECT '00000000-0000-0000-0000-000000000001', 'transferred', {by}, now() - interval '{ago}'"
            f" FROM generate_series(1, {count})"
        )

    await database.run(
        _device(),
        taken(3, "'mallory'", ago="59 minutes"),
        taken(9, "'mallory'", ago="61 minutes"),
        taken(2, "'bob'", ago="1 second"),
        taken(5, "NULL", ago="1 second"),  # to another installation of the same person
    )

    async with database.sessions() as db:
        read = await signals.present(db)

    assert read.transfers == Transfers(5, 3)


@pytest.mark.parametrize(
    "found",
    ["[]", "7", '{"at": 7, "unopened": "x", "oldest_due_at": "infinity"}', '{"at": "9999-12-31T23:59:59-14:00"}'],
)
async def test_a_sweep_that_reports_in_another_way_costs_nobody_the_other_signals(
    database: Database, found: str
) -> None:
    await database.run(
        "INSERT INTO leases (name, holder, expires_at, found)"
        f" VALUES ('sweep', gen_random_uuid(), 'infinity', CAST('{found}' AS jsonb))"
    )

    async with database.sessions() as db:
        read = await signals.present(db)

    assert (read.unopened, read.swept_at) == (OutboxBacklog(0, None), None)


async def test_a_push_that_was_redriven_is_late_since_then(database: Database) -> None:
    await database.run(
        _device(),
        _tasks(1, "pending", due="now() - interval '1 hour'"),
        "UPDATE push_tasks SET again_at = now() - interval '5 seconds'",
        _tasks(2, "rejected", due="now() - interval '59 minutes'"),
        _tasks(3, "rejected", due="now() - interval '61 minutes'"),
    )

    async with database.sessions() as db:
        read = await signals.present(db)

    [backlog] = read.backlogs
    assert backlog.oldest_due_at is not None
    assert timedelta(seconds=5) <= read.at - backlog.oldest_due_at < timedelta(seconds=30)
    assert read.rejected == 2


@pytest.mark.parametrize("odd", ["'-infinity'", "'0001-01-01 BC'", "'1970-01-01'"])
async def test_an_instant_from_before_anything_was_pushed_makes_nothing_look_old(database: Database, odd: str) -> None:
    lately = "now() - interval '5 seconds'"
    await database.run(
        _device(),
        *[_tasks(1, "pending", due=due) for due in (odd, lately)],
        *[
            "INSERT INTO outbox (subject_kind, subject_id, created_at, next_attempt_at)"
            f" VALUES ('x', gen_random_uuid(), {at}, now())"
            for at in (odd, lately)
        ],
        *[
            "INSERT INTO messages (id, kind, conversation_id, number, sender_id, body, created_at)"
            f" VALUES (gen_random_uuid(), 'message', gen_random_uuid(), 1, 'alice', 'Hello', {at})"
            for at in (odd, lately)
        ],
    )

    async with database.sessions() as db:
        read = await signals.present(db)

    [backlog] = read.backlogs
    assert (backlog.overdue, read.outbox.count, read.handoffs.count) == (2, 2, 2)
    for oldest in (backlog.oldest_due_at, read.outbox.oldest_at, read.handoffs.oldest_at):
        assert oldest is not None
        assert timedelta(0) < read.at - oldest < timedelta(seconds=30)


async def test_users_are_counted_once_whatever_they_own_and_whatever_apps_they_make_up(database: Database) -> None:
    await database.run(
        _device(),
        *(_tasks(1, "accepted", due="now()", user=name) for name in ("alice", "bob", "carol", "mallory")),
        *(
            _tasks(5, "unregistered", due="now()", reason="'BadDeviceToken'", app=f"'made.up.{n}'", user="mallory")
            for n in range(5)
        ),
        _tasks(2, "rejected", due="now()", reason="'DeviceTokenNotForTopic'", user="carol"),
        _tasks(1, "rejected", due="now()", reason="'PayloadTooLarge'", user="bob"),
        _tasks(9, "unregistered", due="now() - interval '16 minutes'", reason="'Unregistered'", user="dave"),
        _tasks(3, "dead", due="now() - interval '1 hour'", expires="now() + interval '1 hour'", user="erin"),
        _tasks(3, "dead", due="now() - interval '1 hour'", expires="now() + interval '1 hour'", user="frank"),
        "UPDATE push_tasks SET settled_at = now() WHERE user_id = 'erin'",
    )

    async with database.sessions() as db:
        read = await signals.present(db)
        [shown] = (await gates.shown(db)).items

    [answered] = read.answered
    assert (answered.route, answered.users, answered.token_errors, answered.rejected) == (APNS, 4, 2, 1)
    assert shown.errors == Refusals(pushes=28, users=3, largest_user_id="mallory", largest_pushes=25)
    [dead] = read.dead
    assert (dead.count, dead.unexpired_users, dead.lately_users) == (6, 2, 1)


async def test_pushes_that_our_credentials_keep_waiting_are_reported_with_cause_and_count(database: Database) -> None:
    reason = "'THIRD_PARTY_AUTH_ERROR'"
    await database.run(
        _device(),
        *(_tasks(2, "pending", due="now()", reason=reason, user=name) for name in ("alice", "bob")),
        _tasks(1, "dead", due="now()", reason=reason, user="carol"),
        "UPDATE push_tasks SET attempt_count = 1",
        "INSERT INTO push_attempts (attempt_id, task_id, number, started_at, outcome, reason)"
        " SELECT gen_random_uuid(), task_id, 1, now(), 'misconfigured', last_reason FROM push_tasks",
        _tasks(1, "pending", due="now()", reason="'app_not_configured'", user="dave"),
        _tasks(7, "pending", due="now()", reason="'ServiceUnavailable'", user="erin"),
    )

    async with database.sessions() as db:
        read = await signals.present(db)

    assert set(read.refused) == {
        RefusedPushes(APNS, "THIRD_PARTY_AUTH_ERROR", pushes=5, users=3),
        RefusedPushes(APNS, "app_not_configured", pushes=1, users=1),
    }


async def test_finished_tasks_and_old_messages_are_never_looked_through(database: Database) -> None:
    await database.run(
        _device(),
        _tasks(20_000, "withdrawn", due="now() - interval '1 day'"),
        _tasks(20, "pending", due="now()"),
        _tasks(20, "dead", due="now()"),
        "INSERT INTO messages (id, kind, conversation_id, reminder_minutes)"
        " SELECT gen_random_uuid(), 'reminder', gen_random_uuid(), 1 FROM generate_series(1, 20000)",
    )
    await database.run(
        "INSERT INTO device_token_events (device_id, event, taken_by, at)"
        " SELECT '00000000-0000-0000-0000-000000000001', 'transferred', CASE WHEN n % 5 = 0 THEN 'u' END,"
        " now() - n * interval '1 minute' FROM generate_series(1, 20000) AS n"
    )
    await database.run("ANALYZE push_tasks, messages, device_token_events")
    plans = []
    async with database.sessions() as db:
        now = (await db.execute(text("SELECT now()"))).scalar_one()
        for query, values in (
            (signals._PENDING, {"now": now, "first": signals._FIRST}),
            (signals._DEAD, {"now": now, "useful_for": timedelta(days=1), "lately": timedelta(minutes=15)}),
            (signals._REJECTED, {"now": now}),
            (signals._UNDECIDED, {"first": signals._FIRST}),
            (gates._OF_LATE, {"now": now, "since": now - LATELY, "apps": [], "errors": [], "most": 20_000}),
            (gates._REFUSED, {"now": now, "apps": [], "uncalled": []}),
            (signals._TRANSFERS, {"now": now}),
        ):
            lines = await db.scalars(text(f"EXPLAIN {query.text}"), values)
            plans.append("\n".join(lines))

    indexes = ("_pending", "_dead", "_rejected", "_not_handed_off", "_due_at", "_pending", "_taken")
    for plan, index in zip(plans, indexes, strict=True):
        assert index in plan, plan
        assert "Seq Scan on push_tasks" not in plan, plan
        assert "Seq Scan on messages" not in plan, plan


async def test_one_worker_reads_for_all_and_another_takes_over_when_it_dies(database: Database) -> None:
    fleet = [FleetSignals(database.sessions, database.url, SenderRegistry({}), every=0.05) for _ in range(3)]
    reading = [asyncio.create_task(each.read_forever()) for each in fleet]

    async def leader() -> int | None:
        telling = [place for place, each in enumerate(fleet) if any(each.collect())]
        assert len(telling) <= 1
        return telling[0] + 1 if telling else None

    first = (await eventually(leader)) - 1
    reading[first].cancel()
    with suppress(asyncio.CancelledError):
        await reading[first]
    assert not list(fleet[first].collect())
    second = (await eventually(leader)) - 1
    assert second != first

    async def another() -> bool:
        now = await leader()
        return now is not None and now - 1 != second

    await database.run(  # the connection that holds the lock is lost
        "SELECT pg_terminate_backend(pid, 20000) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE locktype = 'advisory' AND granted AND application_name = 'fastbell-signals'"
        " AND datname = current_database()"
    )
    await eventually(another)
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)


def _device() -> str:
    return (
        "INSERT INTO device_tokens (id, user_id, installation_id, provider, environment, token, active, registered_at,"
        " last_seen_at) VALUES ('00000000-0000-0000-0000-000000000001', 'u', gen_random_uuid(), 'apns', 'production',"
        " 't', true, now(), now())"
    )


def _tasks(
    count: int,
    state: str,
    *,
    due: str,
    expires: str = "now()",
    reason: str = "NULL",
    app: str = "NULL",
    user: str = "u",
) -> str:
    accepted_at = "now()" if state == "accepted" else "NULL"
    return (
        "INSERT INTO push_tasks (task_id, kind, user_id, installation_id, device_id, provider, environment, app_id,"
        " conversation_id, message_id, collapse_key, due_at, expires_at, attempt_count, state, last_reason,"
        " accepted_at)"
        f" SELECT gen_random_uuid(), 'reminder', '{user}', gen_random_uuid(), '00000000-0000-0000-0000-000000000001',"
        f" 'apns', 'production', {app}, gen_random_uuid(), gen_random_uuid(), 'k', {due}, {expires}, 0, '{state}',"
        f" {reason}, {accepted_at} FROM generate_series(1, {count})"
    )
