"""Workers whose limiters run faster, and pushes that are due: started as Temporal starts them, or by Temporal."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.reminders import Moment, OpenReminder, ReminderOpening
from activities.sending import PushSending, SendDependencies, SendPush
from db import holds
from dispatch.relay import Relay
from domain.back_off import BackOff
from domain.mass_failure import Threshold
from domain.naming import user_digest
from domain.push import PlannedSend, Provider, SentPush, TaskState
from fleet.heartbeat import DEFAULT_HEARTBEAT, Heartbeat, HeartbeatTimings, Process
from fleet.takeover import Takeover, TakeoverTimings
from fleet.token_error_cutoff import TokenErrorCutoff
from push.limiter.breaker import Cause, Rest
from push.limiter.settings import Timings
from push.registry import EVERY
from push.sender import Reserved
from sending.retry import BACK_OFFS, BackOffs
from settings.credentials import make_rotation
from tests.stack import Phone, Stack, eventually, uncommitted
from worker import make_send_dependencies, make_workers

QUICK = BackOff(timedelta(milliseconds=100), timedelta(milliseconds=400))
BRISK = Timings(
    rests={
        Cause.OUTAGE: Rest(first=0.2, longest=0.6),
        Cause.THROTTLED: Rest(first=0.3, longest=1.0),
        Cause.MISCONFIGURED: Rest(first=0.3, longest=1.0),
    },
    ramp=1.0,
    max_reserved=2.0,
    check_again=0.1,
    shortest_pause=0.1,
)
BRISK_BACK_OFFS = dict.fromkeys(BACK_OFFS, QUICK) | {Reserved: BACK_OFFS[Reserved]}
USUAL = Threshold()
NO_MORE: Mapping[str, str] = {}
_LIFE = 30  # minutes until the reminders expire
_SHARE_A_FAST = 250


@dataclass(frozen=True)
class WorkerHarness:
    """One worker's sends, without Temporal: `send` does what Temporal does with an activity."""

    stack: Stack
    dependencies: SendDependencies
    sendings: Mapping[Provider, PushSending]
    beating: asyncio.Task[None]

    async def send(self, due: "Due") -> SentPush:
        """Run the send of one push task until it is settled, with the delays that it asks for."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self.send_once(due, attempt)
            except ApplicationError as error:
                await asyncio.sleep((error.next_retry_delay or timedelta(days=1)).total_seconds())
            except (TimeoutError, DBAPIError):  # the database has too much to do; unexpected, so Temporal tries again
                await asyncio.sleep(1)

    async def send_once(self, due: "Due", attempt: int = 1) -> SentPush:
        """Run one attempt of the activity; raises ApplicationError where another is to follow."""
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(environment.info, attempt=attempt)
        ask = SendPush(due.task_id, due.environment, 0.0, due.app_id, due.kind, due.user_digest)
        return await environment.run(self.sendings[due.provider].send_push, ask)

    async def send_all(self, all_due: Sequence["Due"]) -> list[SentPush]:
        """Run the sends of all."""
        return await asyncio.gather(*map(self.send, all_due))

    async def die(self) -> None:
        """Be gone without a word, as after SIGKILL."""
        self.beating.cancel()
        await asyncio.wait([self.beating])
        self.dependencies.limiters.share(None)

    @asynccontextmanager
    async def employed(self) -> AsyncIterator[None]:
        """Take work from Temporal, too."""
        relay = Relay(self.stack.sessions, self.stack.temporal, arm_window=0.0)
        sweeping = asyncio.create_task(relay.sweep_forever())
        workers = make_workers(self.stack.temporal, self.stack.sessions, self.dependencies)
        running = [asyncio.create_task(worker.run()) for worker in workers]
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.gather(*(worker.shutdown() for worker in workers))
            await asyncio.gather(*running)


Due = PlannedSend


@asynccontextmanager
async def worker_harness(
    stack: Stack,
    settings: Mapping[str, str] = NO_MORE,
    *,
    timings: Timings = BRISK,
    heartbeat_timings: HeartbeatTimings = DEFAULT_HEARTBEAT,
    clock: Callable[[], float] = time.monotonic,
    back_offs: BackOffs = BRISK_BACK_OFFS,
    process: Process | None = None,
    cutoff_type: type[TokenErrorCutoff] = TokenErrorCutoff,
    threshold: Threshold = USUAL,
    credentials_every: timedelta | None = None,
    takeover_timings: TakeoverTimings | None = None,
) -> AsyncIterator[WorkerHarness]:
    """Make what a worker process makes, but for its Temporal workers; credentials are followed where told how often.

    It takes over from lost workers where it is told its timings.
    """
    environment = stack.place.environment(**settings)
    rotation = make_rotation(environment, every=credentials_every or EVERY)
    dependencies = make_send_dependencies(stack.sessions, rotation.apps, environment, timings)
    cutoff = cutoff_type(stack.sessions, dependencies.limiters, threshold, clock=clock)
    dependencies = dataclasses.replace(dependencies, cutoff=cutoff, back_offs=back_offs)
    heartbeat = Heartbeat(
        stack.sessions, dependencies.limiters, dependencies.cutoff, heartbeat_timings, process=process
    )
    beating = asyncio.create_task(heartbeat.beat_forever())
    background_tasks = [beating] if credentials_every is None else [beating, asyncio.create_task(rotation.follow())]
    if takeover_timings is not None:
        takeover = Takeover(stack.sessions, takeover_timings)
        dependencies = dataclasses.replace(dependencies, takeover=takeover)
        background_tasks.append(asyncio.create_task(takeover.run_forever(heartbeat.worker_id)))
    sendings = {provider: PushSending(provider, stack.sessions, dependencies) for provider in Provider}
    for provider, sending in sendings.items():
        dependencies.takeover.serve(provider, sending.take_over)
    try:
        yield WorkerHarness(stack, dependencies, sendings, beating)
    finally:
        for task in background_tasks:
            task.cancel()
        await asyncio.wait(background_tasks)
        await heartbeat.leave()
        await rotation.close()


async def due_now(
    stack: Stack, phones: Sequence[Phone], *, environment: str = "production", of_one: str | None = None
) -> list[Due]:
    """Make a reminder that is due at this moment on these phones; gives its planned sends.

    Each phone is another user's, or all are those of one, by this id. Some hundred users share a fast: thousands cost
    little, and no statement more than the database's connections have patience for.
    """
    if of_one is None and len(phones) > _SHARE_A_FAST:
        shares = [phones[first : first + _SHARE_A_FAST] for first in range(0, len(phones), _SHARE_A_FAST)]
        return [due for share in shares for due in await due_now(stack, share, environment=environment)]
    user_id, session_id = of_one or f"user-{uuid4()}", uuid4()
    async with stack.sessions.begin() as db:
        values = {"user_id": user_id, "session_id": session_id, "environment": environment, "life": _LIFE}
        await db.execute(_SESSION, values)
        rows = [{**values, "installation_id": p.installation_id, "p": p.provider, "token": p.token} for p in phones]
        await db.execute(_DEVICE, [{k: v for k, v in row.items() if k not in {"session_id", "life"}} for row in rows])
    [session] = await stack.rows("SELECT ends_at FROM fasting_sessions WHERE id = :id", id=session_id)
    ask = OpenReminder(session_id, _LIFE, session.ends_at - timedelta(minutes=_LIFE), Moment.DUE)
    opened = await ReminderOpening(stack.sessions).open_reminder(ask)
    assert len(opened.sends) == len(phones)
    if of_one is not None:
        return list(opened.sends)
    async with stack.sessions.begin() as db:
        for table in ("device_tokens", "push_tasks"):
            each = f"UPDATE {table} SET user_id = 'user-' || installation_id WHERE user_id = :user_id"
            await db.execute(text(each), {"user_id": user_id})
    owners = "SELECT task_id, user_id FROM push_tasks WHERE conversation_id = :id"
    digests = {row.task_id: user_digest(row.user_id) for row in await stack.rows(owners, id=session_id)}
    return [dataclasses.replace(send, user_digest=digests[send.task_id]) for send in opened.sends]


async def keep_from_takeover(stack: Stack, all_due: Sequence[Due]) -> UUID:
    """Let the worker that a stack has hold these; gives its id.

    It takes over what nobody holds for three seconds, as on a machine that is busy, and at once what a stranger does.
    """

    async def shows_life() -> UUID | None:
        latest = "SELECT worker_id FROM workers WHERE alive_at IS NOT NULL ORDER BY alive_at DESC LIMIT 1"
        rows = await stack.rows(latest)
        return rows[0].worker_id if rows else None

    worker_id: UUID = await eventually(shows_life)
    async with stack.sessions() as db:
        assert len(await holds.record(db, worker_id, [due.task_id for due in all_due])) == len(all_due)
    return worker_id


@asynccontextmanager
async def held_claim(stack: Stack, phone: Phone) -> AsyncIterator[None]:
    """Let PostgreSQL keep a push between its check and the record of its attempt until the block is left."""
    async with stack.sessions.begin() as db:
        await db.execute(text(_HOLD_CLAIM))
        await db.execute(text(_ON_CLAIM.format(installation_id=phone.installation_id)))
    try:
        async with uncommitted(stack, "SELECT pg_advisory_xact_lock(42)"):
            yield
    finally:
        async with stack.sessions.begin() as db:
            await db.execute(text("DROP FUNCTION hold_claim CASCADE"))


async def claim_is_held(stack: Stack) -> bool:
    """Tell whether a push has come so far."""
    held = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    return bool(await stack.rows(held))


async def refused_until_cut_off(stack: Stack, worker: WorkerHarness, all_due: Sequence[Due]) -> None:
    """Try each once, and those again that found no place in time, as on a machine that is busy."""
    while not await stack.rows("SELECT 1 FROM brakes WHERE resumed_at IS NULL"):
        await asyncio.gather(*map(worker.send_once, all_due), return_exceptions=True)


async def active_tokens(stack: Stack, all_due: Sequence[Due]) -> int:
    """Count the tokens of these push tasks that are still active."""
    [row] = await stack.rows(
        "SELECT count(*) AS active FROM device_tokens d JOIN push_tasks t ON t.device_id = d.id"
        " WHERE d.active AND t.task_id = ANY(:ids)",
        ids=[due.task_id for due in all_due],
    )
    return int(row.active)


async def states(stack: Stack, all_due: Sequence[Due]) -> dict[tuple[TaskState, str | None], int]:
    """Count these push tasks by state and last reason."""
    rows = await stack.rows(
        "SELECT state, last_reason, count(*) AS n FROM push_tasks WHERE task_id = ANY(:ids) GROUP BY 1, 2",
        ids=[due.task_id for due in all_due],
    )
    return {(TaskState(row.state), row.last_reason): row.n for row in rows}


async def attempts(stack: Stack, all_due: Sequence[Due]) -> int:
    """Count the provider calls for these push tasks, as recorded."""
    [row] = await stack.rows(
        "SELECT (SELECT count(*) FROM push_attempts WHERE task_id = ANY(:ids)) AS rows,"
        " (SELECT sum(attempt_count) FROM push_tasks WHERE task_id = ANY(:ids)) AS counted",
        ids=[due.task_id for due in all_due],
    )
    assert row.rows == row.counted
    return int(row.rows)


async def engaged_cutoff(stack: Stack, provider: str) -> UUID:
    """Find the one engaged cutoff of a provider."""
    [row] = await stack.rows("SELECT id FROM brakes WHERE provider = :p AND resumed_at IS NULL", p=provider)
    return UUID(str(row.id))


_HOLD_CLAIM = """
    CREATE FUNCTION hold_claim() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM push_tasks WHERE task_id = NEW.task_id AND installation_id = TG_ARGV[0]::uuid) THEN
                WHILE NOT pg_try_advisory_xact_lock(42) LOOP
                    PERFORM pg_sleep(0.01);
                END LOOP;
            END IF;
            RETURN NEW;
        END $$
"""
_ON_CLAIM = """
    CREATE TRIGGER hold_claim BEFORE INSERT ON push_attempts
        FOR EACH ROW EXECUTE FUNCTION hold_claim('{installation_id}')
"""
_SESSION = text("""
    INSERT INTO fasting_sessions (id, user_id, started_at, ends_at, status, reminder_minutes, scheduled_at,
                                  started_with, rev)
    VALUES (:session_id, :user_id, now() - interval '1 hour', date_trunc('milliseconds', now())
            + :life * interval '1 minute', 'active', ARRAY[:life], now() - interval '1 hour', '{}', 1)
""")
_DEVICE = text("""
    INSERT INTO device_tokens (user_id, installation_id, provider, environment, token, active, registered_at,
                               last_seen_at)
    VALUES (:user_id, :installation_id, :p, :environment, :token, true, now(), now())
""")
