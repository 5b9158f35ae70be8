"""Goes from the last release to this code and back, while fasts sleep, are armed, and messages are handed off.

`make test-upgrade`: all in processes of both releases, on one PostgreSQL and one Temporal. It prints what it saw, and
ends with 1 if anything was lost, doubled, late or worked on wrongly.
"""

import asyncio
import json
import os
import random
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import WorkflowHistory

from db.engine import make_engine, make_sessions
from demo.parts import start_postgres
from domain.naming import VERSION
from simulator import Simulator
from tests.busy import ANSWERED_WITHIN, in_time, soon
from tests.events.receiver import Receiver, receiving
from tests.releases import Release, releases
from tests.servers import ROOT, Part, TemporalServer, free_port, part
from tests.stack import UNLIMITED, Stack, StackPlace, eventually, temporal_client
from tests.upgrade.last_release import NotThere, is_in_history, python_of, take_out
from tests.upgrade.people import BROUGHT, Awaited, People

SEED = int(os.environ.get("UPGRADE_SEED") or secrets.randbits(32))
LATE = 15.0  # seconds; a task of a workflow that 0.1.0 took along is missed after 10
LATE_AGAIN = 30.0  # seconds, of what a provider first turned away
_WORKED_ON = "WorkflowType IN ('FastingReminder', 'MessageHandoff', 'SendingPage', 'Redrive')"
# Histories that the last release cannot replay, and why nobody is hurt.
_EXCUSED = {
    "WebhookFollower": "0.1.0 has none, and does not ask their task queue",
    "Retention": "a run takes seconds, is ended after two hours, and starts anew each hour",
}


@dataclass
class Side:
    """One release: its code, its Python, and its processes while they run."""

    name: str
    code: Path
    python: Path
    place: StackPlace
    http: httpx.AsyncClient
    stack: Stack
    port: int
    pids: set[int] = field(default_factory=set)
    parts: list[Part] = field(default_factory=list)
    leaving: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def run(self, *command: str) -> str:
        """Run a command of this release to its end; gives what it prints."""
        async with part(self.place.environment(), *command, python=self.python, code=self.code) as running:
            async with soon(60):
                status = await running.process.wait()
            await running.end(signal.SIGKILL)
            if status:
                raise AssertionError("".join(running.lines))
            return "".join(running.lines)

    async def start_api(self, *, ready: int = 200) -> httpx.Response:
        """Start its API; gives its first answer about its readiness, which has this status."""
        await self._start("-m", "api", API_PORT=str(self.port))

        async def answered() -> httpx.Response | None:
            try:
                return await self.http.get("/readyz")
            except httpx.TransportError:
                return None

        answer: httpx.Response = await eventually(answered, within=40)
        if answer.status_code != ready:
            raise AssertionError(f"{self.name}: /readyz is {answer.status_code}: {answer.text}")
        return answer

    async def start_worker(self) -> None:
        """Start a worker of it."""
        worker = await self._start("worker.py", METRICS_PORT=str(free_port()))
        await worker.says("worker ready", within=40)
        self.pids.add(worker.process.pid)

    async def stop(self) -> None:
        """End its processes as an operator does."""
        statuses = await asyncio.gather(*(each.end(signal.SIGTERM) for each in self.parts))  # one signal each
        await self.leaving.aclose()
        self.parts, self.leaving = [], AsyncExitStack()
        if not {*statuses} <= {0, -signal.SIGTERM}:
            raise AssertionError(f"{self.name}: processes ended with {statuses}")

    async def _start(self, *command: str, **settings: str) -> Part:
        environment = self.place.environment(**UNLIMITED, ARM_WINDOW="20", WEBHOOKS_ALLOW_PRIVATE="true", **settings)
        started = part(environment, *command, python=self.python, code=self.code)
        running = await self.leaving.enter_async_context(started)
        self.parts.append(running)
        return running


@dataclass
class Rehearsal:
    """Both releases, the people, and what was seen."""

    old: Side
    new: Side
    people: People
    seen: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    async def go(self, receiver: Receiver) -> None:
        """Roll out, take back, and roll out again."""
        old, new, people = self.old, self.new, self.people
        await old.run("cli.py", "migrate")
        await old.start_api()
        await old.start_worker()
        say(f"{old.name} serves alone.")
        await people.live(8, [old.stack], twice=True)

        lacking = await new.start_api(ready=503)
        say(f"{new.name} before its migrations is not ready: {lacking.json()['cause']}")
        await new.run("cli.py", "migrate")
        for side in (old, new):
            await _is_ready(side)
        say(f"The migrations of {new.name} are made; the APIs of both are ready.")
        await new.start_worker()
        hook = await self._webhook(receiver)
        await self._together()
        await self._hand_over(old, new)
        await people.live(8, [new.stack], twice=True)

        say(f"Back to {old.name}.")
        await old.start_api()
        await old.start_worker()
        await self._together()
        await self._hand_over(new, old)
        await people.live(8, [old.stack])

        say(f"And to {new.name} again.")
        await new.start_api()
        await new.start_worker()
        await self._together()
        await self._hand_over(old, new)
        await self._settle()
        await self._judge_phones()
        await self._judge_histories()
        await self._judge_events(receiver, hook)
        await self._replay()

    async def _together(self) -> None:
        say("Both serve together.")
        await self.people.live(6, [self.old.stack, self.new.stack])

    async def _hand_over(self, leaving: Side, staying: Side) -> None:
        """End the processes of one release while the other's go on, with work of every kind under way."""
        await self.people.crowd(leaving.stack)
        counts: dict[str, int] = {}
        for _ in range(20):  # a push waits for another attempt for a second or two
            await self.people.live(0.5, [leaving.stack])
            counts = {what: (await staying.stack.rows(query))[0][0] for what, query in _UNDER_WAY.items()}
            if all(counts.values()):
                break
        if leaving is self.new:  # 0.1.0 takes no batches, and has to dispatch what one has left in the outbox
            await self.people.bring(leaving.stack)
            [[owed]] = await staying.stack.rows("SELECT count(*) FROM outbox")
            say(f"A batch has left {owed} of {BROUGHT} fasts in the outbox.")
        say(f"{leaving.name} ends: " + ", ".join(f"{count} {what}" for what, count in counts.items()) + ".")
        for what, count in counts.items():
            self.seen[f"{what}, from {leaving.name} to {staying.name}"] += count
        await leaving.stop()

    async def _webhook(self, receiver: Receiver) -> float:
        backend = self.new.stack.user("backend", "service")
        path = f"/v1/webhooks/{uuid4()}"
        answer = await backend.call("PUT", path, {"url": receiver.url, "types": ["push.accepted"]})
        if answer.status_code != 201:
            raise AssertionError(answer.text)
        return time.time()

    async def _settle(self) -> None:
        """Wait until nobody waits any more."""
        stack = self.new.stack

        async def nothing_is_left() -> bool:
            waiting = await stack.rows("SELECT 1 FROM outbox LIMIT 1")
            running = await stack.temporal.count_workflows(f"ExecutionStatus = 'Running' AND {_WORKED_ON}")
            ahead = max((at for each in self.people.awaited for at in each.due), default=0.0)
            return not waiting and not running.count and ahead < time.time()

        try:
            await eventually(nothing_is_left, within=100)
        except TimeoutError as error:
            self.faults.append(f"something never ended: {error}")

    async def _judge_phones(self) -> None:
        requests: dict[str, list[float]] = {}
        refused: set[str] = set()
        for request in self.new.place.simulator.requests:
            if request.status == 200:
                requests.setdefault(request.token, []).append(request.received_timestamp)
            else:
                refused.add(request.token)
        awaited = self.people.awaited
        wrong = [each for each in awaited if len(requests.get(each.token, ())) != len(each.due)]
        self.faults += [_wrong(each, requests.get(each.token, [])) for each in wrong]
        late, again = [
            [
                came - due
                for each in awaited
                if each.is_reminder and each not in wrong and (each.token in refused) is was_refused
                for due, came in zip(sorted(each.due), sorted(requests.get(each.token, ())), strict=True)
            ]
            for was_refused in (False, True)
        ]
        messages = sum(not each.is_reminder for each in awaited)
        say(
            f"{len(late) + len(again)} reminders and {messages} messages came once each;"
            f" {self.people.changed} fasts were ended, cancelled or moved."
        )
        say(
            f"Reminders were {1000 * statistics.median(late):.0f} ms late in the median, {max(late):.1f} s at most;"
            f" those that a provider first turned away (FCM then asks for 10 s), {max(again, default=0):.1f} s at most."
        )
        too_late = [
            each
            for some, most in ((late, LATE), (again, LATE_AGAIN))
            for each in some
            if each <= -0.1 or not in_time(each, most)
        ]
        self.faults += [f"a reminder was {each:.1f} s late" for each in too_late]

    async def _judge_histories(self) -> None:
        """No task of a workflow may have failed, and some workflows must have been worked on by both."""
        failed: Counter[str] = Counter()
        shared: Counter[str] = Counter()
        client = self.new.stack.temporal
        async for each in client.list_workflows(f"{_WORKED_ON} OR WorkflowType = 'WebhookFollower'"):
            history = await client.get_workflow_handle(each.id, run_id=each.run_id).fetch_history()
            failed.update(f"{each.workflow_type}: {why}" for why in _failed_tasks(history))
            sides = [self._side(name) for name in _workers_of(history)]
            shared.update({f"{one} → {next_one}" for one, next_one in pairwise(sides) if one != next_one})
        ways = [f"{self.old.name} → {self.new.name}", f"{self.new.name} → {self.old.name}"]
        say(
            "Workflows that went from one release to the other: "
            + ", ".join(f"{way} {shared[way]}" for way in ways)
            + "."
        )
        self.faults += [f"{count} workflow tasks failed: {why}" for why, count in failed.items()]
        self.faults += [f"no workflow went {way}" for way in ways if not shared[way]]
        self.faults += [f"there were none {what}" for what, count in self.seen.items() if not count]

    def _side(self, identity: str) -> str:
        pid = int(identity.partition("@")[0])
        return next((side.name for side in (self.old, self.new) if pid in side.pids), identity)

    async def _judge_events(self, receiver: Receiver, since: float) -> None:
        accepted = "SELECT task_id FROM push_tasks WHERE state = 'accepted' AND settled_at > to_timestamp(:since)"
        wanted = {str(row.task_id) for row in await self.new.stack.rows(accepted, since=since + 1)}

        async def all_told() -> bool:
            return wanted <= {each.json["data"].get("task_id") for each in receiver.requests}

        try:
            await eventually(all_told, within=40)
            say(f"The webhook was told of {len(wanted)} accepted pushes, those of {self.old.name} included.")
        except TimeoutError:
            self.faults.append("the webhook was not told of all accepted pushes")

    async def _replay(self) -> None:
        """Replay this code's recorded histories with the last release's code, as far as their workflows were open."""
        histories = ROOT / "tests" / "histories"
        printed = await self.old.run(str(Path(__file__).with_name("replay.py")), str(histories))
        replayed: dict[str, str | None] = json.loads(printed.splitlines()[-1])
        kinds = {each.stem: _kind(each) for each in histories.glob("*.json")}
        broken = {name: error for name, error in replayed.items() if error}
        excused = [name for name in broken if kinds[name] in _EXCUSED]
        say(f"{len(replayed) - len(broken)} of {len(replayed)} recorded histories replay with {self.old.name}.")
        for kind in sorted({kinds[name] for name in excused}):
            say(f"  Not those of {kind}: {_EXCUSED[kind]}.")
        self.faults += [
            f"{name} does not replay with {self.old.name}: {broken[name]}" for name in set(broken) - {*excused}
        ]


# Failures of workflow tasks that Temporal causes itself, under one release as well: news came while the workflow ended,
# or a hundred results while one task ran.
_OF_THE_SERVER = {"UNHANDLED_COMMAND", "FORCE_CLOSE_COMMAND"}
_UNDER_WAY = {
    "asleep": """
        SELECT count(*) FROM fasting_sessions AS s
         WHERE status = 'active' AND ends_at > now() + interval '1 minute'
           AND NOT EXISTS (SELECT FROM push_tasks AS t WHERE t.conversation_id = s.id AND t.due_at > now())
    """,
    "armed": "SELECT count(*) FROM push_tasks WHERE kind = 'reminder' AND state = 'pending' AND due_at > now()",
    "in back-off": "SELECT count(*) FROM push_tasks WHERE state = 'pending' AND last_reason IS NOT NULL",
    "messages being handed off": "SELECT count(*) FROM messages WHERE kind = 'message' AND handed_off_at IS NULL",
}


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{time.monotonic() - _BEGAN:6.1f} s  {text}\n")
    sys.stdout.flush()


_BEGAN = time.monotonic()


async def _is_ready(side: Side) -> None:
    async def is_so() -> bool:
        return (await side.http.get("/readyz")).status_code == 200

    await eventually(is_so)


def _wrong(awaited: Awaited, came: Sequence[float]) -> str:
    what = "a reminder" if awaited.is_reminder else "a message"
    due = ", ".join(f"{at - time.time():.1f}" for at in awaited.due)
    return f"{what} came {len(came)} times instead of {len(awaited.due)} (due {due or 'never'}: seconds from now)"


def _failed_tasks(history: WorkflowHistory) -> Iterable[str]:
    for event in history.events:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
            failed = event.workflow_task_failed_event_attributes
            cause = WorkflowTaskFailedCause.Name(failed.cause)
            if cause.removeprefix("WORKFLOW_TASK_FAILED_CAUSE_") not in _OF_THE_SERVER:
                yield f"{cause} {failed.failure.message}"


def _workers_of(history: WorkflowHistory) -> list[str]:
    done = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    return [
        each.workflow_task_completed_event_attributes.identity for each in history.events if each.event_type == done
    ]


def _kind(path: Path) -> str:
    started: dict[str, Any] = json.loads(path.read_text())["events"][0]["workflowExecutionStartedEventAttributes"]
    return str(started["workflowType"]["name"])


@asynccontextmanager
async def _side(name: str, code: Path, python: Path, place: StackPlace) -> AsyncIterator[Side]:
    port = free_port()
    engine = make_engine(place.database_url)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=ANSWERED_WITHIN) as http:
        stack = Stack(place, http, make_sessions(engine), await temporal_client(place))
        side = Side(name, code, python, place, http, stack, port)
        try:
            yield side
        finally:
            await side.leaving.aclose()
            await engine.dispose()


async def rehearse(release: Release) -> list[str]:
    """Go through it all; returns what went wrong. Raises NotThere."""
    with tempfile.TemporaryDirectory(prefix="fastbell-") as directory:
        here = Path(directory)
        code = here / "release"
        take_out(release, code)
        python = python_of(release, code)
        say(
            f"From {release.version} ({release.commit[:12]}) to {VERSION} and back. UPGRADE_SEED={SEED} repeats chance."
        )
        postgres = start_postgres(here / "data")
        try:
            async with (
                TemporalServer.start(free_port(), ("default",)) as server,
                Simulator.start(run_dir=here) as simulator,
                receiving() as receiver,
            ):
                place = StackPlace(postgres.get_uri(), server.address, "default", simulator)
                async with (
                    _side(release.version, code, python, place) as old,
                    _side(VERSION, ROOT, Path(sys.executable), place) as new,
                ):
                    rehearsal = Rehearsal(old, new, People(random.Random(SEED)))
                    await rehearsal.go(receiver)
                    return rehearsal.faults
        finally:
            postgres.cleanup()


def main() -> int:
    """Rehearse; gives the exit status."""
    [release, *_] = releases()
    if sys.argv[1:] == ["--leave-out"] and not is_in_history(release):
        say(f"Left out: this checkout's history lacks the commit of release {release.version}.")
        return 0
    try:
        faults = asyncio.run(rehearse(release))
    except NotThere as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for fault in faults:
        sys.stderr.write(f"FAULT: {fault}\n")
    if not faults:
        say("Nothing was lost, doubled, late, or worked on wrongly.")
    return 1 if faults else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the SDK's threads may crash an interpreter that shuts down
