"""The fleet's signals as gauges. Routes that are configured are told of even where nothing waits."""

from collections.abc import Collection, Iterator
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily

from domain.kinds import Kind
from domain.push import Environment, Provider, Route
from domain.signals import OutboxBacklog, Signals
from telemetry import metrics as labels

Key = tuple[Provider, str | None]

_ROUTE = ("provider", "app_id", "environment")
_BACKLOG = {
    "pending": "Push tasks that are pending, armed ones included.",
    "overdue": "Pending push tasks that are due by now.",
    "retrying": "Overdue push tasks that were hindered at least once: the depth of the retry queue.",
    "behind_gate": "Overdue push tasks on a route whose gate is shut in some worker, or braked.",
}
_DEAD = {
    "dead": "Dead push tasks, of those due in the last 24 hours.",
    "redrivable": "Dead push tasks that have not expired: a person can still save them.",
}
_DEAD_USERS = {
    "redrivable": "Users with a dead push task that has not expired.",
    "dead": "Users with a push task that died in the last 15 minutes.",
}
_ANSWERED = {
    "answered": "Users whose pushes, due in the last 15 minutes, came to something.",
    "token_error": "Of these, users whose token was refused.",
    "rejected": "Of these, users whose push was refused for a fault of ours.",
}


def families(read: Signals, configured: Collection[Key]) -> Iterator[GaugeMetricFamily]:
    """Give all gauges; an app that is configured for no provider counts as the default one."""
    yield _single("read_timestamp_seconds", "When these signals were read.", read.at.timestamp())
    yield from _backlogs(read, configured)
    yield from _dead(read, configured)
    yield from _answered(read, configured)
    yield from _refused(read, configured)
    yield from _owed("outbox", "Rows of the outbox", read.outbox, read.at)
    yield from _owed("handoffs", "Messages of which it is not decided how each phone is told", read.handoffs, read.at)
    yield from _owed("unopened_reminders", "Reminders that are due and that nobody opened", read.unopened, read.at)
    if read.swept_at is not None:
        yield _single(
            "swept_timestamp_seconds", "When fasts without a workflow were looked for.", read.swept_at.timestamp()
        )
    yield _brakes(read, configured)
    yield _single("workers", "Workers seen in the last 10 seconds.", read.workers)
    yield _single("streams", "Open streams.", read.streams)
    taken = "Device tokens that passed from one user to another in the last hour"
    yield _single("token_transfers", f"{taken}.", read.transfers.count)
    yield _single("token_transfers_by_one_user", f"{taken}: the most that one took.", read.transfers.by_one_user)


def _backlogs(read: Signals, configured: Collection[Key]) -> Iterator[GaugeMetricFamily]:
    found = {(route, kind): dict.fromkeys((*_BACKLOG, "age"), 0.0) for route in _routes(configured) for kind in Kind}
    for each in read.backlogs:
        key = (labels.known(each.route, configured), each.kind)
        row = found.setdefault(key, dict.fromkeys((*_BACKLOG, "age"), 0.0))
        for name in _BACKLOG:
            row[name] += getattr(each, name)
        row["age"] = max(row["age"], _age(each.oldest_due_at, read.at))
    for name, meaning in _BACKLOG.items():
        family = _family(f"{name}_pushes", meaning, (*_ROUTE, "kind"))
        for (route, kind), row in found.items():
            family.add_metric((*labels.of_route(route), kind.value), row[name])
        yield family
    family = _family("oldest_overdue_push_seconds", "How long the oldest overdue push task is due.", (*_ROUTE, "kind"))
    for (route, kind), row in found.items():
        family.add_metric((*labels.of_route(route), kind.value), row["age"])
    yield family


def _dead(read: Signals, configured: Collection[Key]) -> Iterator[GaugeMetricFamily]:
    found = {(route, kind): [0, 0, 0, 0] for route in _routes(configured) for kind in Kind}
    for each in read.dead:
        row = found.setdefault((labels.known(each.route, configured), each.kind), [0, 0, 0, 0])
        for place, count in enumerate((each.count, each.unexpired, each.unexpired_users, each.lately_users)):
            row[place] += count
    names = [(f"{name}_pushes", meaning) for name, meaning in _DEAD.items()]
    names += [(f"{name}_users", meaning) for name, meaning in _DEAD_USERS.items()]
    for place, (name, meaning) in enumerate(names):
        family = _family(name, meaning, (*_ROUTE, "kind"))
        for (route, kind), counts in found.items():
            family.add_metric((*labels.of_route(route), kind.value), counts[place])
        yield family


def _answered(read: Signals, configured: Collection[Key]) -> Iterator[GaugeMetricFamily]:
    found = {route: [0, 0, 0] for route in _routes(configured)}
    for each in read.answered:
        row = found.setdefault(labels.known(each.route, configured), [0, 0, 0])
        for place, count in enumerate((each.users, each.token_errors, each.rejected)):
            row[place] += count
    for place, (name, meaning) in enumerate(_ANSWERED.items()):
        family = _family(f"{name}_users", meaning, _ROUTE)
        for route, counts in found.items():
            family.add_metric(labels.of_route(route), counts[place])
        yield family


def _refused(read: Signals, configured: Collection[Key]) -> Iterator[GaugeMetricFamily]:
    found: dict[tuple[Route, str], list[int]] = {}
    for each in read.refused:
        row = found.setdefault((labels.known(each.route, configured), labels.reason(each.reason)), [0, 0])
        row[0] += each.pushes
        row[1] += each.users
    for place, name in enumerate(("pushes", "users")):
        meaning = f"{name.capitalize()} that our credentials keep waiting, or let die; of those due within the hour."
        family = _family(f"misconfigured_{name}", meaning, (*_ROUTE, "reason"))
        for (route, reason), counts in found.items():
            family.add_metric((*labels.of_route(route), reason), counts[place])
        yield family


def _owed(name: str, what: str, owed: OutboxBacklog, now: datetime) -> Iterator[GaugeMetricFamily]:
    yield _single(name, f"{what}.", owed.count)
    yield _single(f"{name}_oldest_seconds", f"{what}: the age of the oldest.", _age(owed.oldest_at, now))


def _brakes(read: Signals, configured: Collection[Key]) -> GaugeMetricFamily:
    family = _family("brake_engaged", "1 while a route's brake is engaged; a person resumes.", _ROUTE)
    engaged = {labels.known(route, configured) for route in read.brakes}
    for route in {*_routes(configured), *engaged}:
        family.add_metric(labels.of_route(route), float(route in engaged))
    return family


def _routes(configured: Collection[Key]) -> list[Route]:
    return [Route(provider, app_id, Environment.PRODUCTION) for provider, app_id in configured]


def _family(name: str, meaning: str, names: Collection[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fastbell_fleet_{name}", meaning, labels=tuple(names))


def _single(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fastbell_fleet_{name}", meaning, value=value)


def _age(at: datetime | None, now: datetime) -> float:
    return 0.0 if at is None else max((now - at).total_seconds(), 0.0)
