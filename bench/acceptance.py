"""`python -m bench.acceptance`: how fast fasts are accepted, and messages while parts are killed.

Users start fasts of their own, which end in 16 hours: one request each, 32 in flight. Then a service starts fasts in
batches through one API process, as an import does. Two people start a fast of their own, one as that begins and one as
it ends, each with a reminder due in a minute. Then, with everything started anew, messages are posted at a steady pace,
first with everything running, then after the Temporal server and the provider simulator were killed. The status is 1
where something was refused, or a goal was missed.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx

from bench.arrivals import read_all, wait_for
from bench.load import BATCH, BATCHES_IN_FLIGHT, Calls, Person, people, service, sign_in, start_fasts, start_in_batches
from bench.percentiles import percentile
from bench.progress import phase
from bench.report import machine
from bench.stack import Stack, running
from bench.usage import Usage

GOAL = 1.5  # p99 with half of the parts killed, divided by p99 with all up
_PER_SECOND = 25  # messages; well below what the machine can do, so that it measures waiting, not queueing
_MEMBERS = 10
_WARM_UP = 50  # messages
STARTS_GOAL = 1000  # fasts a second, in batches
SINGLE_STARTS_GOAL = 250  # fasts a second, one request each
API_GOAL = 4.0  # milliseconds of CPU of one such start, its dispatch included
LATENESS_GOAL = 2.0  # seconds, of the reminders of others
_DUE_IN = 60.0  # seconds
_PATIENCE = 60.0  # seconds that a late reminder is waited for


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How acceptance went; times in seconds."""

    up: Calls
    down: Calls
    refused: int  # messages that were not answered with 201

    @property
    def ratio(self) -> float:
        """Compare the slowest hundredth."""
        return percentile(self.down.each, 0.99) / percentile(self.up.each, 0.99)

    @property
    def reached(self) -> bool:
        """Tell whether all were accepted, as fast without the missing parts."""
        return not self.refused and self.ratio <= GOAL


@dataclass(frozen=True, slots=True)
class Imported:
    """How a service's fasts were accepted, and how late others' reminders were meanwhile."""

    fasts: int
    batches: Calls
    lateness: tuple[float | None, ...]  # seconds; None: it never came
    waiting: int  # rows of the outbox that were left then

    @property
    def rate(self) -> float:
        """Give fasts per second."""
        return self.fasts / self.batches.took

    @property
    def reached(self) -> bool:
        """Tell whether they were accepted fast enough, and held up nobody."""
        on_time = all(each is not None and each <= LATENESS_GOAL for each in self.lateness)
        return self.rate >= STARTS_GOAL and on_time


@dataclass(frozen=True, slots=True)
class Singly:
    """How users' own starts were accepted, and what one of them cost."""

    calls: Calls
    cpu: Mapping[str, float]  # milliseconds of a start by part, to the last answer
    told: int  # fasts that Temporal knew of by then

    @property
    def reached(self) -> bool:
        """Tell whether they were accepted fast enough, and cost little enough."""
        return self.calls.rate >= SINGLE_STARTS_GOAL and self.cpu["api"] <= API_GOAL


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the status is 1 if a message was not accepted, or the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.acceptance", description=__doc__)
    parser.add_argument("--messages", type=int, default=500, metavar="N", help="in each half of the run (500)")
    parser.add_argument("--fasts", type=int, default=5000, metavar="N", help="that a service starts in batches (5000)")
    parser.add_argument("--singly", type=int, default=3000, metavar="N", help="fasts that users start (3000)")
    parser.add_argument("--only-singly", action="store_true", help="measure these alone")
    options = parser.parse_args(arguments)
    try:
        singly = asyncio.run(measure_singly(options.singly))
        _report_singly(singly)
        if options.only_singly:
            return 0 if singly.reached else 1
        imported = asyncio.run(measure_import(options.fasts))
        _report(imported)
        acceptance = asyncio.run(measure(options.messages))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    print(f"{options.messages} messages at {_PER_SECOND} a second to conversations of {_MEMBERS}; {machine()}\n")
    print(f"{'acceptance in ms':<44} {'p50':>8} {'p90':>8} {'p99':>8} {'max':>8}")
    for name, calls in (("all up", acceptance.up), ("Temporal and both providers down", acceptance.down)):
        cells = " ".join(f"{1000 * percentile(calls.each, share):8.1f}" for share in (0.5, 0.9, 0.99, 1.0))
        print(f"{name:<44} {cells}")
    goal = "reached" if acceptance.ratio <= GOAL else "missed"
    print(f"\np99 down / up: {acceptance.ratio:.2f} (goal: at most {GOAL}: {goal})")
    print(f"not accepted: {acceptance.refused}")
    return 0 if acceptance.reached and imported.reached and singly.reached else 1


def _report_singly(singly: Singly) -> None:
    each, goals = singly.calls.each, (SINGLE_STARTS_GOAL, API_GOAL)
    print(f"{len(each)} fasts, one request each, 32 in flight; {machine()}\n")
    print(
        f"accepted: {singly.calls.rate:.0f} fasts a second (goal: at least {goals[0]}; the client shares the machine)"
    )
    print(f"a request took {1000 * percentile(each, 0.5):.0f} ms, p99 {1000 * percentile(each, 0.99):.0f} ms")
    parts = ", ".join(f"{part} {spent:.1f}" for part, spent in singly.cpu.items())
    print(f"CPU of a start in ms: {parts} (goal of the API: at most {goals[1]:g})")
    print(f"load: {os.getloadavg()[0]:.1f}; fasts that Temporal was told of by then: {singly.told}\n")


def _report(imported: Imported) -> None:
    slowest = 1000 * percentile(imported.batches.each, 0.99)
    goal = "reached" if imported.rate >= STARTS_GOAL else "missed"
    print(f"{imported.fasts} fasts in batches of {BATCH}, {BATCHES_IN_FLIGHT} in flight; {machine()}\n")
    print(f"accepted: {imported.rate:.0f} fasts a second (goal: at least {STARTS_GOAL}: {goal})")
    print(f"a batch took {1000 * percentile(imported.batches.each, 0.5):.0f} ms, p99 {slowest:.0f} ms")
    told = ["never came" if each is None else f"{each:.2f} s late" for each in imported.lateness]
    print(f"reminders of others, due a minute after the import began and ended: {', '.join(told)}")
    print(f"fasts that Temporal was not told of yet: {imported.waiting}\n")


async def measure_singly(count: int) -> Singly:
    """Have so many users start a fast each, on a stack of its own."""
    async with running(arm_window=60.0) as stack:
        due_at = datetime.now(UTC) + timedelta(hours=16)
        with phase("warm up", _WARM_UP) as progress:
            await start_fasts(stack, people(stack, _WARM_UP, count), due_at, progress)
        crowd, usage = people(stack, count), Usage(stack.pids)
        before = usage.look()
        with phase("start fasts singly", count) as progress:
            calls = await start_fasts(stack, crowd, due_at, progress)
        after = usage.look()
        told = count - await stack.ask_database("SELECT count(*) FROM outbox")
        return Singly(calls, {part: 1000 * (after.cpu[part] - before.cpu[part]) / count for part in after.cpu}, told)


async def measure_import(count: int) -> Imported:
    """Start so many fasts, on a stack of its own."""
    async with running(arm_window=60.0) as stack:
        others = people(stack, 2)
        with phase("sign in", len(others)) as progress:
            await sign_in(stack, others, progress)
        return await _import(stack, others, count)


async def measure(count: int) -> Acceptance:
    """Run once, on a stack of its own."""
    async with running(arm_window=60.0) as stack:
        crowd = people(stack, _MEMBERS)
        with phase("sign in", len(crowd)) as progress:
            await sign_in(stack, crowd, progress)
        conversation_id = await _talk(stack)
        await _post(stack, crowd, conversation_id, _WARM_UP, "warm up")
        up = await _post(stack, crowd, conversation_id, count, "post, all up")
        for name in ("temporal", "simulator"):
            stack.kill(name, signal.SIGKILL)
        down = await _post(stack, crowd, conversation_id, count, "post, half gone")
        return Acceptance(up, down, 2 * count - len(up.each) - len(down.each))


async def _import(stack: Stack, others: Sequence[Person], count: int) -> Imported:
    """Start fasts in batches, and others' fasts as that begins and ends; waits for the reminders of those."""
    due_at = []
    for which, person in enumerate(others):
        due_at.append(datetime.now(UTC) + timedelta(seconds=_DUE_IN))
        with phase("start another's fast", 1) as progress:
            await start_fasts(stack, [person], due_at[-1], progress)
        if which == 0:
            with phase("fasts in batches", count) as progress:
                batches = await start_in_batches(stack, count, progress)
    with phase("reminders of others", len(others)) as progress:
        await wait_for(stack.simulator_url, len(others), due_at[-1].timestamp() + _PATIENCE, progress)
    came = (await read_all(stack.simulator_url, others)).received
    waiting = await stack.ask_database("SELECT count(*) FROM outbox")
    lateness = [
        came[person.provider][0] - due.timestamp() if came[person.provider] else None
        for person, due in zip(others, due_at, strict=True)
    ]
    return Imported(count, batches, tuple(lateness), waiting)


async def _talk(stack: Stack) -> UUID:
    conversation_id = uuid4()
    body = {"member_ids": [f"user-{number}" for number in range(_MEMBERS)]}
    async with httpx.AsyncClient(base_url=stack.api_url, trust_env=False) as http:
        headers = service(stack)
        (await http.put(f"/v1/conversations/{conversation_id}", json=body, headers=headers)).raise_for_status()
    return conversation_id


async def _post(stack: Stack, crowd: Sequence[Person], conversation_id: UUID, count: int, name: str) -> Calls:
    """Post at a steady pace, however long each takes; gives those that were accepted."""
    each: list[float] = []
    with phase(name, count) as progress:
        async with httpx.AsyncClient(base_url=stack.api_url, timeout=30, trust_env=False) as http:

            async def post(person: Person) -> None:
                began = time.perf_counter()
                path = f"/v1/conversations/{conversation_id}/messages/{uuid4()}"
                try:
                    answer = await http.put(path, json={"body": "Hello"}, headers=person.headers)
                except httpx.HTTPError as error:
                    progress.tell(f"no answer: {type(error).__name__}")
                    return
                if answer.status_code == httpx.codes.CREATED:
                    each.append(time.perf_counter() - began)
                else:
                    progress.tell(f"answered {answer.status_code}")
                progress.show(len(each))

            began = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for number in range(count):
                    await asyncio.sleep(began + number / _PER_SECOND - time.perf_counter())
                    group.create_task(post(crowd[number % len(crowd)]))
    return Calls(time.perf_counter() - began, tuple(sorted(each)))


if __name__ == "__main__":
    sys.exit(main())
