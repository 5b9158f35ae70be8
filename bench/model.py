"""`python -m bench.model`: what so many users need, from what one reminder was measured to cost.

`docs/sizing.md` holds what this prints for its defaults, and says where each cost was measured.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

DAY, MONTH = 86_400, 30  # seconds, days
BUSY = 0.6  # of a core, at the busiest moment: what is left absorbs a lost process and a bad minute
_DIVISORS = {"late", "burst", "arm_window", "transitions_per_shard"}
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)


@dataclass(frozen=True, slots=True)
class Load:
    """What users do. The defaults are assumptions: replace them by your own figures."""

    fasts: float = 0.5  # a day and user; every other one fasts
    reminders: float = 1  # of a fast
    phones: float = 1.3  # of a user
    messages: float = 0.2  # that a user receives, a day
    calls: float = 6  # a day and user, besides those that start a fast: register, sync, read, write, end
    peak: float = 4  # the busiest hour, compared with the mean of the day
    together: float = 0.02  # the share of a day's reminders that is due at one instant, such as 18:00
    kept: float = 30  # days that finished data is kept (RETENTION_DAYS)
    kept_messages: float = 90  # days that messages are kept (LOG_RETENTION_DAYS)


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured on one machine (docs/sizing.md, Costs): CPU in milliseconds of one of its cores."""

    api_start: float = 3.1  # a start through the API, with its dispatch
    api_call: float = 6.2  # any other call
    worker_reminder: float = 19.3
    database_reminder: float = 2.6  # its start included
    database_call: float = 1.35  # any other call
    temporal_reminder: float = 50.0  # a server on PostgreSQL, all services
    further_phone: float = 0.3  # the share of worker and Temporal that one phone more costs
    arm_window: float = 60.0  # seconds in which those due at one instant are armed (ARM_WINDOW)
    worker_arming: float = 9.1  # of worker_reminder, what arming takes
    temporal_arming: float = 16.0  # of temporal_reminder
    database_burst: float = 0.25  # of database_reminder, at the due instant
    burst: float = 1_500  # reminders a second, by one worker process, that were armed before
    late: float = 5.0  # seconds that the last of a burst may be late
    actions: float = 4  # Cloud's, of a reminder with one phone
    actions_further_phone: float = 1
    actions_message: float = 4
    transitions: float = 10  # state transitions of Temporal, of a reminder
    transitions_per_shard: float = 5  # a second
    row_fast: float = 5.8  # KB in PostgreSQL, of a fast with one push, its indexes included
    row_message: float = 3.0  # KB, of a message with one push, its indexes and events included
    row_user: float = 1.5  # KB, of a user with phones and preferences
    history: float = 32.0  # KB in Temporal's database, of a sleeping or finished fast
    history_message: float = 23.0  # KB, of a message's handoff
    history_days: float = 3  # that Temporal keeps it (TEMPORAL_RETENTION)
    connections: float = 11  # of a process to PostgreSQL, at most: DATABASE_POOL_SIZE, and one to listen


@dataclass(frozen=True, slots=True)
class Needs:
    """What so many users need."""

    users: int
    starts: float  # a second, in the busiest hour
    burst: float  # reminders due at one instant
    api: int  # processes, one core each
    workers: int  # processes, one core each
    connections: int  # to PostgreSQL
    database_cores: int
    database_size: float  # GB, with history as long as it is kept
    temporal_cores: int
    temporal_size: float  # GB
    shards: int
    actions: float  # a month, in millions


def needs(users: int, load: Load, costs: Costs) -> Needs:
    """Compute what so many users need."""
    starts = users * load.fasts * load.peak / DAY
    pushes = starts * load.reminders + users * load.messages * load.peak / DAY
    further = max(load.phones - 1, 0.0)
    phones = 1 + further * costs.further_phone
    together = users * load.fasts * load.reminders * load.together
    burst, armed = together * load.phones, together * phones / costs.arm_window  # pushes, and reminders a second
    calls = users * load.calls * load.peak / DAY
    api = _processes(starts * costs.api_start + calls * costs.api_call)
    workers = max(
        _processes(pushes * phones * costs.worker_reminder),
        _cores(armed * costs.worker_arming),
        math.ceil(burst / costs.burst / costs.late),
    )
    fasts, messages = users * load.fasts, users * load.messages
    actions = costs.actions + further * costs.actions_further_phone
    finished = fasts * load.kept * costs.row_fast + messages * load.kept_messages * costs.row_message
    histories = fasts * (1 + costs.history_days) * costs.history + messages * costs.history_days * costs.history_message
    return Needs(
        users=users,
        starts=starts,
        burst=burst,
        api=api,
        workers=workers,
        connections=math.ceil((api + workers) * costs.connections),
        database_cores=max(
            2,
            _cores(pushes * costs.database_reminder + calls * costs.database_call),
            math.ceil(burst * costs.database_burst / 1000 / costs.late),
        ),
        database_size=(finished * load.phones + users * costs.row_user) / 1e6,
        temporal_cores=max(2, _cores(pushes * phones * costs.temporal_reminder), _cores(armed * costs.temporal_arming)),
        temporal_size=histories / 1e6,
        shards=_shards(max(pushes * phones, armed) * costs.transitions / costs.transitions_per_shard),
        actions=MONTH * (fasts * load.reminders * actions + messages * costs.actions_message) / 1e6,
    )


def table(rows: Sequence[Needs]) -> str:
    """Write the table of `docs/sizing.md`."""
    lines = [["users", *(_round(each.users) for each in rows)]]
    for name, value in _LINES.items():
        lines.append([name, *(value(each) for each in rows)])
    head, *rest = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|---" * (len(rows) + 1) + "|", *rest])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, with any assumption or cost replaced by an option."""
    parser = argparse.ArgumentParser(prog="python -m bench.model", description=__doc__)
    parser.add_argument("--users", type=_count, nargs="+", default=SIZES, metavar="N")
    for kind in (Load, Costs):
        for field in fields(kind):
            read = _above_zero if field.name in _DIVISORS else _figure
            parser.add_argument(f"--{field.name}", type=read, metavar="X")
    options = vars(parser.parse_args(arguments))
    given = {name: value for name, value in options.items() if value is not None}
    load = replace(Load(), **{each.name: given[each.name] for each in fields(Load) if each.name in given})
    costs = replace(Costs(), **{each.name: given[each.name] for each in fields(Costs) if each.name in given})
    print(table([needs(users, load, costs) for users in options["users"]]))
    return 0


def _figure(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError("must be a number, 0 or more")
    return value


def _above_zero(text: str) -> float:
    if not (value := _figure(text)):
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def _count(text: str) -> int:
    return int(_figure(text))


def _processes(milliseconds: float) -> int:
    """Say how many do so much work a second; two at least, for one may be lost."""
    return max(2, _cores(milliseconds))


def _cores(milliseconds: float) -> int:
    """Say how many cores do so much work a second."""
    return math.ceil(milliseconds / 1000 / BUSY)


def _shards(wanted: float) -> int:
    return max(512, 1 << math.ceil(math.log2(max(wanted, 1))))


def _round(value: float) -> str:
    """Write a number with two significant digits, thousands apart."""
    if value >= 1000:
        digits = 1 - math.floor(math.log10(value))
        return f"{round(value, digits):,.0f}".replace(",", " ")
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


_LINES: dict[str, Callable[[Needs], str]] = {
    "starts a second, busiest hour": lambda each: _round(each.starts),
    "pushes due at one instant": lambda each: _round(each.burst),
    "API processes": lambda each: _round(each.api),
    "worker processes": lambda each: _round(each.workers),
    "PostgreSQL: connections, at most": lambda each: _round(each.connections),
    "PostgreSQL: cores": lambda each: _round(each.database_cores),
    "PostgreSQL: GB": lambda each: _round(each.database_size),
    "Temporal: cores, its database included": lambda each: _round(each.temporal_cores),
    "Temporal's database: GB": lambda each: _round(each.temporal_size),
    "Temporal: history shards": lambda each: str(each.shards),
    "Temporal Cloud: million actions a month": lambda each: _round(each.actions),
}


if __name__ == "__main__":
    sys.exit(main())
