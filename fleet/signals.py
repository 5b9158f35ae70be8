"""The fleet's signals as gauges: one worker reads them from the database, the others stand by.

Configured routes are reported even while nothing waits for them.
"""

import asyncio
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from db.engine import Sessions, connect_alone, look_alone
from db.views import signals
from db.views.signals import OutboxBacklog, Signals
from domain.kinds import Kind
from domain.push import Environment, Provider, Route
from push.registry import SenderRegistry
from telemetry import metrics as labels

Key = tuple[Provider, str | None]
Labels = tuple[str, ...]

_ROUTE = ("provider", "app_id", "environment")
_BACKLOG = {
    "pending_pushes": "Pending push tasks, including armed ones.",
    "overdue_pushes": "Pending push tasks that are already due.",
    "retrying_pushes": "Overdue push tasks that failed at least once: the depth of the retry queue.",
    "behind_gate_pushes": "Overdue push tasks whose route is paused in some worker, or stopped.",
}
_OLDEST = {"oldest_overdue_push_seconds": "How long ago the oldest overdue push task became due or was redriven."}
_DEAD = {
    "dead_pushes": "Dead push tasks that were due in the last 24 hours.",
    "redrivable_pushes": "Dead push tasks that have not expired: a person can redrive them.",
    "redrivable_users": "Users with a dead push task that has not expired.",
    "dead_users": "Users with a push task that died in the last 15 minutes.",
}
_ANSWERED = {
    "answered_users": "Users with an answered push that was due in the last 15 minutes.",
    "token_error_users": "Of these, users whose token was refused.",
    "rejected_users": "Of these, users whose push was refused because of our error.",
}
_REFUSED = {
    f"misconfigured_{name.lower()}": f"{name} due within the hour that wait or died: our credentials were refused."
    for name in ("Pushes", "Users")
}
_CUTOFF = {"brake_engaged": "1 while the token-error cutoff stops the route; a person resumes it."}
EVERY = 15.0  # seconds
_SOON = 1.0  # seconds, until the first sweep is over
_TIMEOUT = 10.0  # seconds for one reading
_LEADS = "SELECT pg_try_advisory_lock(hashtextextended('signals', 0))"
log = structlog.get_logger()


def families(read: Signals, configured: Collection[Key]) -> Iterator[GaugeMetricFamily]:
    """Give all gauges; an app that is configured for no provider counts as the default one."""

    def label(route: Route, *more: str) -> Labels:
        return (*labels.of_route(labels.known(route, configured)), *more)

    routes = [label(Route(provider, app_id, Environment.PRODUCTION)) for provider, app_id in configured]
    of_kind, kinds = (*_ROUTE, "kind"), [(*route, kind.value) for route in routes for kind in Kind]
    yield _single("read_timestamp_seconds", "When these signals were read.", read.at.timestamp())
    backlogs = [(label(each.route, each.kind.value), each) for each in read.backlogs]
    waiting = [(key, (each.pending, each.overdue, each.retrying, each.behind_gate)) for key, each in backlogs]
    yield from _gauges(_BACKLOG, of_kind, kinds, waiting)
    yield from _gauges(
        _OLDEST, of_kind, kinds, [(key, [_age(each.oldest_due_at, read.at)]) for key, each in backlogs], max
    )
    dead = [
        (label(each.route, each.kind.value), (each.count, each.unexpired, each.unexpired_users, each.lately_users))
        for each in read.dead
    ]
    yield from _gauges(_DEAD, of_kind, kinds, dead)
    answered = [(label(each.route), (each.users, each.token_errors, each.rejected)) for each in read.answered]
    yield from _gauges(_ANSWERED, _ROUTE, routes, answered)
    refused = [(label(each.route, labels.reason(each.reason)), (each.pushes, each.users)) for each in read.refused]
    yield from _gauges(_REFUSED, (*_ROUTE, "reason"), (), refused)
    yield from _backlog("outbox", "Rows of the outbox", read.outbox, read.at)
    yield from _backlog(
        "handoffs", "Messages whose handoff has not decided yet how to reach each phone", read.handoffs, read.at
    )
    yield from _backlog("unopened_reminders", "Due reminders that no workflow has processed", read.unopened, read.at)
    yield from _backlog("erasures", "Erasures of people that are not done", read.erasures, read.at)
    if read.swept_at is not None:
        meaning = "When a worker last looked for fasts without a workflow."
        yield _single("swept_timestamp_seconds", meaning, read.swept_at.timestamp())
    yield from _gauges(_CUTOFF, _ROUTE, routes, [(label(route), (1.0,)) for route in read.brakes], max)
    yield _single("workers", "Workers seen in the last 10 seconds.", read.workers)
    yield _single("streams", "Open streams.", read.streams)
    failing = "For how long no delivery to the webhook was accepted that fails for longest; 0: none fails."
    yield _single("webhook_failing_seconds", failing, _age(read.webhooks.failing_since, read.at))
    dead_deliveries = "Deliveries to webhooks that were tried for a day: a person can redrive them."
    yield _single("webhook_dead_deliveries", dead_deliveries, read.webhooks.dead)
    taken = "Device tokens that moved from one user to another in the last hour"
    yield _single("token_transfers", f"{taken}.", read.transfers.count)
    yield _single("token_transfers_by_one_user", f"{taken}: the most that one user took.", read.transfers.by_one_user)


def _gauges(
    meanings: Mapping[str, str],
    names: Sequence[str],
    expected: Iterable[Labels],
    rows: Iterable[tuple[Labels, Sequence[float]]],
    combine: Callable[[float, float], float] = operator.add,
) -> Iterator[GaugeMetricFamily]:
    """Give one gauge for each column. Rows with the same labels are combined; expected labels without a row are 0."""
    totals: dict[Labels, list[float]] = {each: [0.0] * len(meanings) for each in expected}
    for key, values in rows:
        totals[key] = list(map(combine, totals.get(key, [0.0] * len(meanings)), values))
    for column, (name, meaning) in enumerate(meanings.items()):
        family = GaugeMetricFamily(f"fastbell_fleet_{name}", meaning, labels=names)
        for key, values in totals.items():
            family.add_metric(key, values[column])
        yield family


def _backlog(name: str, what: str, backlog: OutboxBacklog, now: datetime) -> Iterator[GaugeMetricFamily]:
    yield _single(name, f"{what}.", backlog.count)
    yield _single(f"{name}_oldest_seconds", f"{what}: the age of the oldest.", _age(backlog.oldest_at, now))


def _single(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fastbell_fleet_{name}", meaning, value=value)


def _age(at: datetime | None, now: datetime) -> float:
    return 0.0 if at is None else max((now - at).total_seconds(), 0.0)


class FleetSignals(Collector):
    """Holds what was read last, for scrapes; nothing while another worker reads.

    The reader holds a lock of PostgreSQL on a connection of its own, so the lock ends with the process.
    """

    def __init__(self, sessions: Sessions, database_url: str, apps: SenderRegistry, *, every: float = EVERY) -> None:
        self._sessions = sessions
        self._database_url = database_url
        self.apps = apps
        self._every = every
        self._connection: Any = None
        self._signals: Signals | None = None

    async def read_forever(self) -> None:
        """Read, or stand by, until cancelled."""
        try:
            while True:
                try:
                    async with asyncio.timeout(_TIMEOUT):
                        self._signals = await self._read()
                except Exception as error:  # noqa: BLE001 -- whatever ails the database
                    log.warning("reading the signals failed", error=type(error).__name__)
                    self._give_up()
                is_whole = self._signals is None or self._signals.swept_at is not None
                await asyncio.sleep(self._every if is_whole else min(self._every, _SOON))
        finally:
            self._give_up()

    def collect(self) -> Iterator[Metric]:
        """Give the gauges, if this worker is the reader."""
        signals_read = self._signals
        if signals_read is not None:
            yield from families(signals_read, self.apps.keys)

    async def _read(self) -> Signals | None:
        if self._connection is None:
            self._connection = await connect_alone(self._database_url, "fastbell-signals")
            self._connection.add_termination_listener(self._lost)
        if self._signals is None and not await self._connection.fetchval(_LEADS):
            return None
        if self._signals is not None:
            await look_alone(self._connection)  # without its connection it has lost the lock
        async with self._sessions() as db:
            read = await signals.present(db)
        return None if self._connection.is_closed() else read  # lost meanwhile: another worker may read

    def _lost(self, connection: object) -> None:
        """Give nothing from now on: another worker may read at once."""
        if connection is self._connection:
            self._signals = None

    def _give_up(self) -> None:
        self._signals = None
        if self._connection is not None:
            with suppress(Exception):
                self._connection.terminate()
            self._connection = None
