"""`make chaos`: people live while everything is killed at random. Judged by their phones and the providers alone."""

import asyncio
import os
import random
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from simulator import Simulator
from simulator.wire import WireRequest
from tests.chaos.judge import Call, Log, Run, ShownLine, Trouble, Verdict, judge
from tests.chaos.people import People, clients
from tests.chaos.plan import Plan, make_plan
from tests.chaos.stage import Stage, running

PEOPLE = int(os.environ.get("CHAOS_PEOPLE", "120"))  # `make chaos` says 10000
SECONDS = float(os.environ.get("CHAOS_SECONDS", "12"))  # `make chaos` says 200
KILLS = int(os.environ.get("CHAOS_KILLS", "7"))  # `make chaos` says 40; kills and freezes
SEED = int(os.environ.get("CHAOS_SEED") or secrets.randbits(32))
PATIENCE = 60 + SECONDS  # seconds until all that is late has to have come
SETTLES = min(25.0, SECONDS / 4)  # seconds in which nothing more may come

pytestmark = [pytest.mark.long, pytest.mark.timeout(int(300 + 5 * SECONDS + PEOPLE / 20))]


async def test_nobody_loses_or_sees_twice_whatever_is_killed(tmp_path: Path) -> None:
    plan = make_plan(SEED, PEOPLE, SECONDS, KILLS)
    run, loads = Run(), [os.getloadavg()[0]]
    began = time.monotonic()
    async with Simulator.start(run_dir=tmp_path) as simulator, running(simulator, tmp_path) as stage, clients() as http:
        people = People(plan, stage.apis, http, run, random.Random(f"{SEED}/people"))
        await people.sign_in()
        origin = time.time() + 1
        following = [asyncio.create_task(people.follow(life)) for life in plan.lives if life.is_connected]
        following.append(asyncio.create_task(stage.watch_ourselves()))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(people.live(origin))
                group.create_task(_disturb(stage, plan, origin))
            loads.append(os.getloadavg()[0])
            simulator.faults.clear()
            verdict = await _settled(stage, people, run, simulator)
            run.logs = [*_streamed(people), *await people.logs()]
            run.told = await people.ask_what_is_so()
        finally:
            people.over.set()
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
        run.odd_answers += [each for process in stage.ours.values() for each in process.ended_alone]
        verdict = judge(_seen(stage, run, simulator))
    loads.append(os.getloadavg()[0])
    run.troubles = stage.troubles
    (tmp_path / "run.txt").write_text(_course(run, verdict, origin))
    print(_told(run, verdict, loads, time.monotonic() - began))  # noqa: T201 (the report)

    assert {name: list(found[:20]) for name, found in verdict.zeros.items() if found} == {}


async def _disturb(stage: Stage, plan: Plan, origin: float) -> None:
    """Do what is planned at its time."""

    async def at(instant: float) -> None:
        await asyncio.sleep(origin + instant - time.time())

    async with asyncio.TaskGroup() as group:

        async def fault(number: int) -> None:
            await at(plan.faults[number].at)
            stage.trouble(plan.faults[number])

        async def disrupt(number: int) -> None:
            await at(plan.disruptions[number].at)
            await stage.disrupt(plan.disruptions[number])

        for number in range(len(plan.faults)):
            group.create_task(fault(number))
        for number in range(len(plan.disruptions)):
            group.create_task(disrupt(number))


async def _settled(stage: Stage, people: People, run: Run, simulator: Simulator) -> Verdict:
    """Wait until nothing is missing, or for too long, and then for a while in which nothing more may come."""
    until = time.monotonic() + PATIENCE
    while True:
        began = time.monotonic()
        run.logs = _streamed(people)
        verdict = await asyncio.to_thread(judge, _seen(stage, run, simulator))  # the providers go on meanwhile
        if not verdict.lost or time.monotonic() > until:
            break
        await asyncio.sleep(0.5 + 4 * (time.monotonic() - began))
    await asyncio.sleep(SETTLES)
    return verdict


def _streamed(people: People) -> list[Log]:
    return [Log(user_id, tuple(items)) for user_id, items in people.streamed.items()]


def _seen(stage: Stage, run: Run, simulator: Simulator) -> Run:
    """Look at providers and screens."""
    arrived = {receipt.request.number for phone in simulator.phones for receipt in phone.log}
    calls = [_call(request, arrived) for request in simulator.requests]
    cuts = [
        Trouble(f"provider {call.provider}", call.received_at, call.received_at)
        for call in calls
        if call.reason in {"close", "goaway"}
    ]
    lines = [
        ShownLine(phone.token, str(line.data.get("kind")), _subject(line.data.get("url")))
        for phone in simulator.phones
        for line in phone.screen
    ]
    return replace(run, calls=calls, lines=lines, troubles=[*stage.troubles, *cuts], until=time.time())


def _call(request: WireRequest, arrived: set[int]) -> Call:
    payload = request.payload if isinstance(request.payload, dict) else {}
    data = payload.get("message", {}).get("data", {}) if request.provider == "fcm" else payload
    return Call(
        received_at=request.received_timestamp,
        provider=str(request.provider),
        token=request.token,
        task_id=str(data.get("task_id")),
        kind=str(data.get("kind")),
        subject=_subject(data.get("url")),
        status=request.status,
        reason=request.reason,
        arrived=request.number in arrived,
    )


def _subject(url: object) -> UUID | None:
    try:
        return UUID(str(url).rsplit("/", 1)[-1])
    except ValueError:
        return None


def _told(run: Run, verdict: Verdict, loads: Sequence[float], took: float) -> str:
    """Write the report."""
    zeros = ", ".join(f"{name} {len(found)}" for name, found in verdict.zeros.items())
    starts = sum(len(fast.goals) for fast in run.fasts.values())
    holders = sum(len(handset.holders) for handset in run.handsets.values())
    flew, troubles = max(verdict.in_flight, default=0), Counter(trouble.target for trouble in run.troubles)
    return f"""
CHAOS_SEED={SEED} CHAOS_PEOPLE={PEOPLE} CHAOS_SECONDS={SECONDS:g} CHAOS_KILLS={KILLS}
{zeros}
{len(run.handsets)} phones; {starts} starts, moves and ends; {holders} sign-ins and sign-outs; {len(run.posts)} messages
lateness, s: {_quantiles("reminders", verdict.reminders)}
  whose first call failed or was lost: {_quantiles("reminders", verdict.called_again)}
  {_quantiles("messages", verdict.messages)}
overtaken by their person: {len(verdict.overtaken)}
checked before an act, received after it: {len(verdict.in_flight)}, {flew:.1f} s at most
calls again: {verdict.repeated}; killed, frozen, cut: {dict(troubles)}
load {", ".join(f"{load:.1f}" for load in loads)} on {os.cpu_count()} cores; took {took:.0f} s
"""


def _course(run: Run, verdict: Verdict, origin: float) -> str:
    """Tell what was disturbed when, and which reminders came latest, in seconds after the start."""
    troubles = [f"{each.target}: {each.began_at - origin:.1f} to {each.ended_at - origin:.1f}" for each in run.troubles]
    latest = [
        f"{late:.1f} late at {call.received_at - origin:.1f}: {call.subject} {call.task_id}"
        for late, call in sorted(verdict.latest, key=lambda each: -each[0])[:100]
    ]
    return "\n".join(
        [*troubles, *latest, *(f"{name}: {each}" for name, found in verdict.zeros.items() for each in found)]
    )


def _quantiles(name: str, seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return f"{name} {len(seconds)}"
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return f"{name} {len(seconds)}: p50 {cuts[49]:.1f} p90 {cuts[89]:.1f} p99 {cuts[98]:.1f} max {max(seconds):.1f}"
