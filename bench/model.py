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
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)


@dataclass(frozen=True, slots=True)
class Load:
    """What users do. The defaults are assumptions: replace them by your own figures."""

    fasts: float = 0.5  # a day and user; every other one fasts
    reminders: float = 1  # of a fast
    phones: float = 1.3  # of a user
    messages: float = 0.2  # that a user receives, a day
    calls: float = 6  # a day and user, besides those that start a fast: register, sync, read, end
    peak: float = 4  # the busiest hour, compared with the mean of the day
    together: float = 0.02  # the share of a day's reminders that is due at one instant, such as 18:00
    kept: float = 30  # days that finished data is kept (RETENTION_DAYS)


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured on one machine (docs/sizing.md, Costs): CPU in milliseconds of one of its cores."""

    api_start: float = 3.8  # a start through the API, with its dispatch
    api_call: float = 6.2  # any other call
    worker_reminder: float = 22.0
    database_reminder: float = 6.0
    temporal_reminder: float = 50.0  # a server on PostgreSQL, all services
    further_phone: float = 0.3  # the share of worker and Temporal that one phone more costs
    burst: float = 1_500  # reminders a second, by one worker process, that were armed before
    late: float = 5.0  # seconds that the last of a burst may be late
    actions: float = 4  # Cloud's, of a reminder with one phone
    actions_further_phone: float = 1
    actions_message: float = 4
    transitions: float = 10  # state transitions of Temporal, of a reminder
    transitions_per_shard: float = 5  # a second
    row_fast: float = 5.8  # KB in PostgreSQL, of a fast with one push, its indexes included
    row_user: float = 1.5  # KB, of a user with phones and preferences
    history: float = 32.0  # KB in Temporal's database, of a sleeping or finished fast
    history_days: float = 3  # that Temporal keeps it (TEMPORAL_RETENTION)


@dataclass(frozen=True, slots=True)
class Needs:
    """What so many users need."""

    users: int
    starts: float  # a second, in the busiest hour
    burst: float  # reminders due at one instant
    api: int  # processes, one core each
    workers: int  # processes, one core each
    database_cores: int
    database_size: float  # GB, with history as long as it is kept
    temporal_cores: int
    temporal_size: float  # GB
    shards: int
    actions: float  # a month, in millions


def needs(users: int, load: Load, costs: Costs) -> Needs:
    """Compute what so many users need."""
    starts = users * load.fasts * load.peak / DAY
    reminders = starts * load.reminders
    further = max(load.phones - 1, 0.0)
    phones = 1 + further * costs.further_phone
    api = starts * costs.api_start + users * load.calls * load.peak / DAY * costs.api_call
    pushes = reminders + users * load.messages * load.peak / DAY
    burst = users * load.fasts * load.reminders * load.phones * load.together
    of_burst = burst / (costs.burst * costs.late)
    temporal = pushes * costs.temporal_reminder * phones
    fasts = users * load.fasts
    actions = costs.actions + further * costs.actions_further_phone
    return Needs(
        users=users,
        starts=starts,
        burst=burst,
        api=_processes(api),
        workers=max(_processes(pushes * costs.worker_reminder * phones), math.ceil(of_burst)),
        database_cores=max(2, math.ceil(pushes * costs.database_reminder / 1000 / BUSY)),
        database_size=(fasts * load.kept * costs.row_fast * load.phones + users * costs.row_user) / 1e6,
        temporal_cores=max(2, math.ceil(temporal / 1000 / BUSY)),
        temporal_size=fasts * (1 + costs.history_days) * costs.history / 1e6,
        shards=_shards(pushes * costs.transitions * phones / costs.transitions_per_shard),
        actions=MONTH * users * (load.fasts * load.reminders * actions + load.messages * costs.actions_message) / 1e6,
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
    parser.add_argument("--users", type=int, nargs="+", default=SIZES, metavar="N")
    for kind in (Load, Costs):
        for field in fields(kind):
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, metavar="X", dest=field.name)
    options = vars(parser.parse_args(arguments))
    given = {name: value for name, value in options.items() if value is not None}
    load = replace(Load(), **{each.name: given[each.name] for each in fields(Load) if each.name in given})
    costs = replace(Costs(), **{each.name: given[each.name] for each in fields(Costs) if each.name in given})
    print(table([needs(users, load, costs) for users in options["users"]]))
    return 0


def _processes(milliseconds: float) -> int:
    """Say how many do so much work a second; two at least, for one may be lost."""
    return max(2, math.ceil(milliseconds / 1000 / BUSY))


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
    "PostgreSQL: cores": lambda each: _round(each.database_cores),
    "PostgreSQL: GB": lambda each: _round(each.database_size),
    "Temporal: cores, its database included": lambda each: _round(each.temporal_cores),
    "Temporal's database: GB": lambda each: _round(each.temporal_size),
    "Temporal: history shards": lambda each: str(each.shards),
    "Temporal Cloud: million actions a month": lambda each: _round(each.actions),
}


if __name__ == "__main__":
    sys.exit(main())
