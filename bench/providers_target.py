"""What every sender of the provider benchmark is given, and how sends are kept in flight and timed."""

import asyncio
import itertools
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psutil

from domain.kinds import Kind
from domain.presentation import Look
from domain.push import Push

_PUSHES = 5000  # pushes made beforehand, sent in turn
_TOKEN_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server is and what it takes us for."""

    port: int
    ca_file: Path
    apns_key_file: Path
    apns_key_id: str
    apns_team_id: str
    apns_topic: str
    service_account_file: Path

    @property
    def url(self) -> str:
        """The server's address."""
        return f"https://127.0.0.1:{self.port}"


@dataclass(slots=True)
class Supply(Iterator[Push]):
    """The pushes to send, as one stream that all who send take from; it ends at an instant or after a number."""

    pushes: Iterator[Push]
    until: float = float("inf")  # time.perf_counter()
    count: int | None = None
    look_every: int | None = None
    taken: int = 0
    resident: list[int] = field(default_factory=list)  # bytes, looked at each time so many were taken

    def __next__(self) -> Push:
        """Give one more."""
        if self.taken == self.count or time.perf_counter() >= self.until:
            raise StopIteration
        if self.look_every and self.taken % self.look_every == 0:
            self.resident.append(psutil.Process().memory_info().rss)
        self.taken += 1
        return next(self.pushes)


@dataclass(slots=True)
class CallOutcome:
    """How long each send took that was accepted, and why others were not."""

    seconds: deque[float] = field(default_factory=deque)
    accepted: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def accept(self, seconds: float, count: int = 1) -> None:
        """Note sends that were accepted."""
        self.accepted += count
        self.seconds.extend([seconds] * count)

    def fail(self, error: Exception) -> None:
        """Note a send that was not."""
        self.failures[f"{type(error).__name__}: {error}"[:80]] += 1


Run = Callable[[Supply, int, CallOutcome], Awaitable[None]]  # sends the whole supply with so many in flight
Candidate = Callable[[Target], AbstractAsyncContextManager[Run]]
Send = Callable[[Push], Awaitable[object]]  # raises unless the push was accepted


def apns_pushes() -> Iterator[Push]:
    """Reminders for so many iPhones, again and again."""
    return itertools.cycle([reminder(f"{number:064x}") for number in range(_PUSHES)])


def fcm_pushes() -> Iterator[Push]:
    """Reminders for so many Android phones, again and again."""
    letters = itertools.cycle(_TOKEN_LETTERS)
    tokens = (
        "".join(itertools.islice(letters, 22)) + ":APA91b" + "".join(itertools.islice(letters, 134))
        for _ in range(_PUSHES)
    )
    return itertools.cycle([reminder(token) for token in tokens])


def one_by_one(send: Send) -> Run:
    """Keep coroutines busy, each with one send at a time."""

    async def run(supply: Supply, in_flight: int, outcome: CallOutcome) -> None:
        async def sender() -> None:
            for push in supply:
                began = time.perf_counter()
                try:
                    await send(push)
                except Exception as error:  # noqa: BLE001 (whatever a library raises: the push was not accepted)
                    outcome.fail(error)
                else:
                    outcome.accept(time.perf_counter() - began)

        await asyncio.gather(*(sender() for _ in range(in_flight)))

    return run


def in_threads(send: Callable[[Push], object]) -> Run:
    """Keep threads busy, each with one send at a time."""

    def sender(supply: Supply, outcome: CallOutcome) -> None:
        for push in supply:
            began = time.perf_counter()
            try:
                send(push)
            except Exception as error:  # noqa: BLE001 (as above)
                outcome.fail(error)
            else:
                outcome.accept(time.perf_counter() - began)

    async def run(supply: Supply, in_flight: int, outcome: CallOutcome) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(in_flight) as threads:
            await asyncio.gather(*(loop.run_in_executor(threads, sender, supply, outcome) for _ in range(in_flight)))

    return run


def in_batches(send: Callable[[list[Push]], Awaitable[int]]) -> Run:
    """Send batch after batch; each push of a batch took as long as the batch. `send` tells how many were accepted."""

    async def run(supply: Supply, in_flight: int, outcome: CallOutcome) -> None:
        while batch := list(itertools.islice(supply, in_flight)):
            began = time.perf_counter()
            accepted = await send(batch)
            outcome.accept(time.perf_counter() - began, accepted)
            outcome.failures["in a batch"] += len(batch) - accepted

    return run


def reminder(token: str) -> Push:
    """Make a push as a reminder is."""
    return Push(
        task_id=uuid4(),
        attempt_id=uuid4(),
        kind=Kind.REMINDER,
        token=token,
        title="Almost there",
        body="Fifteen minutes to go. You have fasted for 15 h 45 min.",
        generic_title="Reminder",
        generic_body="Open the app to see it.",
        url=f"fastbell://fasting-sessions/{uuid4()}",
        collapse_key=f"fast-{uuid4()}",
        thread_id=str(uuid4()),
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        useful_for=timedelta(hours=1),
        look=Look(channel="reminders"),
    )
