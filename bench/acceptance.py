"""`python -m bench.acceptance`: how long acceptance of a message takes, with all parts up and with half of them killed.

One run: messages are posted at a steady pace, first with everything running, then after the Temporal server and the
provider simulator were killed. The status is 1 where a message was refused, or the p99 of the second half is above the
goal.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import httpx

from bench.load import Calls, Person, people, sign_in
from bench.percentiles import percentile
from bench.progress import phase
from bench.report import machine
from bench.stack import Stack, running
from commands.sign_in import bearer_token

GOAL = 1.5  # p99 with half of the parts killed, divided by p99 with all up
_PER_SECOND = 25  # messages; well below what the machine can do, so that it measures waiting, not queueing
_MEMBERS = 10
_WARM_UP = 50  # messages


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the status is 1 if a message was not accepted, or the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.acceptance", description=__doc__)
    parser.add_argument("--messages", type=int, default=500, metavar="N", help="in each half of the run (500)")
    options = parser.parse_args(arguments)
    try:
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
    return 0 if acceptance.reached else 1


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


async def _talk(stack: Stack) -> UUID:
    conversation_id = uuid4()
    bearer = bearer_token(stack.auth, "backend", ("service",), timedelta(hours=1))
    body = {"member_ids": [f"user-{number}" for number in range(_MEMBERS)]}
    async with httpx.AsyncClient(base_url=stack.api_url, trust_env=False) as http:
        headers = {"Authorization": f"Bearer {bearer}"}
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
