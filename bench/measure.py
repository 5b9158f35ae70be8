"""One measured run: everybody signs in, starts a fast, and is reminded at one instant."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bench.arrivals import Arrivals, read_all, wait_for
from bench.histories import events_and_actions
from bench.load import Calls, Person, people, sign_in, start_fasts
from bench.percentiles import percentile
from bench.progress import Progress, phase
from bench.receiver import Receiver
from bench.stack import Launch, Stack, running
from bench.usage import Usage, watching
from domain.fasts import ARM_LEAD

_HISTORIES = 25  # fetched
_TIMEOUT = 180.0  # seconds after the due instant


@dataclass(frozen=True, slots=True)
class Lateness:
    """Provider received minus due, in seconds."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Figures:
    """The results of one run. CPU is in milliseconds per reminder."""

    arm_window: float
    accepted_per_second: float
    call_p50: float  # seconds
    call_p99: float
    lateness: Mapping[str, Lateness]  # "all", and by provider
    received: int
    lost: int
    doubled: int
    early: int
    refused: int
    cpu: Mapping[str, float]  # by part, from the first call to the last workflow's end
    arming_cpu: Mapping[str, float]  # of that, while they are armed
    last_moment: float  # seconds: from one second before the due instant until the last push was received
    last_moment_cpu: Mapping[str, float]
    others: float  # share of the machine that everything else used in the last moment
    events: float  # per reminder
    actions: float
    memory: Mapping[str, float]  # peak megabytes by part

    @property
    def is_sound(self) -> bool:
        """Whether each reminder came, once, not before its time."""
        return not (self.lost or self.doubled or self.early)

    @property
    def received_per_second(self) -> float:
        """How many a second from the due instant until the last was received."""
        return self.received / (self.last_moment - 1)


async def measure(count: int, arm_window: float, cores: int, workers: int, receiver: Receiver) -> Figures:
    """Run once, on a stack of its own."""
    async with running(arm_window, Launch(workers=workers, receiver=receiver)) as stack:
        return await _measured(stack, count, arm_window, cores)


async def _measured(stack: Stack, count: int, arm_window: float, cores: int) -> Figures:
    crowd = people(stack, count)
    with phase("sign in", count) as progress:
        signed_in = await sign_in(stack, crowd, progress)
    async with watching(stack.pids) as usage:
        began = time.time()
        due = _due(count, signed_in.rate, arm_window)
        with phase("start fasts", count) as progress:
            calls = await start_fasts(stack, crowd, datetime.fromtimestamp(due, UTC), progress)
        with phase("until all are in Temporal", count) as progress:
            await _all_sleep(stack, count, due, progress)
        _warn_if_late(due, arm_window)
        with phase("until due", round(due - time.time())) as progress:
            await _until(due, progress)
        with phase("until received", count) as progress:
            await wait_for(stack.simulator_url, count, due + _TIMEOUT, progress)
        with phase("until every workflow has ended", count) as progress:
            await _all_end(stack, count, due + _TIMEOUT, progress)
        ended = usage.look().at
    arrivals = await read_all(stack.simulator_url, crowd)
    events, actions = await events_and_actions(stack.temporal, [p.session_id for p in crowd[:_HISTORIES]])
    return _figures(_Run(arm_window, crowd, calls, arrivals, usage, began, due, ended, events, actions, cores))


@dataclass(frozen=True, slots=True)
class _Run:
    arm_window: float
    crowd: Sequence[Person]
    calls: Calls
    arrivals: Arrivals
    usage: Usage
    began: float
    due: float
    ended: float
    events: float
    actions: float
    cores: int


def _figures(run: _Run) -> Figures:
    instants = run.arrivals.instants
    since, until = run.due - 1, max([run.due, *instants])
    last_moment = run.usage.cpu_between(since, until)
    others = last_moment.pop("others")
    whole = run.usage.cpu_between(run.began, run.ended)
    arming = run.usage.cpu_between(since - run.arm_window, since) if run.arm_window else dict.fromkeys(whole, 0.0)
    del whole["others"], arming["others"]
    per_reminder = 1000 / len(run.crowd)
    return Figures(
        arm_window=run.arm_window,
        accepted_per_second=run.calls.rate,
        call_p50=percentile(run.calls.each, 0.5),
        call_p99=percentile(run.calls.each, 0.99),
        lateness={
            name: _lateness(received, run.due) for name, received in {"all": instants, **run.arrivals.received}.items()
        },
        received=len(instants),
        lost=run.arrivals.lost,
        doubled=run.arrivals.doubled,
        early=sum(instant < run.due for instant in instants),
        refused=run.arrivals.refused,
        cpu={part: seconds * per_reminder for part, seconds in whole.items()},
        arming_cpu={part: seconds * per_reminder for part, seconds in arming.items()},
        last_moment=until - since,
        last_moment_cpu={part: seconds * per_reminder for part, seconds in last_moment.items()},
        others=others / (until - since) / run.cores,
        events=run.events,
        actions=run.actions,
        memory=run.usage.peak_memory(),
    )


def _lateness(received: Sequence[float], due: float) -> Lateness:
    late = [instant - due for instant in received]
    return Lateness(percentile(late, 0.5), percentile(late, 0.9), percentile(late, 0.99), percentile(late, 1.0))


def _due(count: int, rate: float, arm_window: float) -> float:
    """Choose an instant that leaves time to accept all before the first is armed."""
    armed_before = arm_window + ARM_LEAD if arm_window else 0.0
    return float(round(time.time() + 2 + 3 * count / rate + armed_before))


def _warn_if_late(due: float, arm_window: float) -> None:
    if time.time() > due - (arm_window + ARM_LEAD if arm_window else 0.0):
        print("  (accepting took longer than planned and ran into the arming)")


async def _all_sleep(stack: Stack, count: int, until: float, progress: Progress) -> None:
    while (started := (await stack.temporal.count_workflows()).count) < count and time.time() < until:
        progress.show(started)
        await asyncio.sleep(0.25)


async def _until(due: float, progress: Progress) -> None:
    wait = due - time.time()
    while (left := due - time.time()) > 0:
        progress.show(round(wait - left))
        await asyncio.sleep(min(left, 0.5))


async def _all_end(stack: Stack, count: int, until: float, progress: Progress) -> None:
    while (left := (await stack.temporal.count_workflows("ExecutionStatus = 'Running'")).count) and time.time() < until:
        progress.show(count - left)
        await asyncio.sleep(0.5)
