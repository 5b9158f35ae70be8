"""Plans a run from its seed: people's lives, their conversations, what is killed and frozen, faults of providers."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from uuid import UUID

LATER = 7200.0  # seconds: a reminder that is not due within any run
READY = 5.0  # seconds after the start until the first reminder is due
TARGETS = ("api 0", "api 1", "worker 0", "worker 1", "temporal", "postgres")


class Act(StrEnum):
    """What somebody does."""

    START = "start"
    MOVE = "move"
    END = "end"
    CANCEL = "cancel"
    SIGN_OUT = "sign out"
    SIGN_IN = "sign in"
    SWITCH = "switch"  # to the account of the other one of the household
    WRITE = "write"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Step:
    """An act at an instant, in seconds after the start."""

    at: float
    act: Act
    due: float = 0.0  # of a start or a move: when the reminder is due, in seconds after the start
    phone: int = 0
    id: UUID | None = None  # of the conversation
    message_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class PlannedPhone:
    """A phone."""

    provider: str
    token: str
    installation_id: UUID


@dataclass(frozen=True, slots=True)
class Life:
    """Somebody's life. Who starts before the run does so in a batch."""

    user_id: str
    partner_id: str
    session_id: UUID
    phones: tuple[PlannedPhone, ...]
    steps: tuple[Step, ...]
    is_connected: bool = False  # the first phone follows its owner's log by a stream

    @property
    def starts(self) -> Step | None:
        """The start of the fast; None for who does not fast."""
        return next((step for step in self.steps if step.act is Act.START), None)


class Disturbance(StrEnum):
    """How a process is disturbed."""

    KILL = "SIGKILL"
    FREEZE = "SIGSTOP"
    CUT = "pg_terminate_backend"  # only of a connection on which an API process listens


@dataclass(frozen=True, slots=True)
class Disruption:
    """A process is killed, and started again after a while; or frozen for a while. In seconds after the start."""

    at: float
    target: str
    how: Disturbance
    lasts: float


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A provider's fault, as the simulator takes it."""

    at: float
    fields: tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that chance decides."""

    lives: tuple[Life, ...]
    conversations: Mapping[UUID, tuple[str, ...]]
    disruptions: tuple[Disruption, ...]
    faults: tuple[PlannedFault, ...]


def make_plan(seed: int, people: int, seconds: float, kills: int) -> Plan:
    """Plan a run of so many people over so many seconds, in which processes are killed or frozen so often."""
    conversations = _conversations(random.Random(f"{seed}/conversations"), people)
    of_user: dict[str, list[UUID]] = {}
    for conversation_id, members in conversations.items():
        for member in members:
            of_user.setdefault(member, []).append(conversation_id)
    connected = max(2, min(50, people // 20))
    lives = []
    for number in range(people):
        life = _life(random.Random(f"{seed}/life {number}"), number, seconds, of_user.get(_user(number), []))
        stays = not {step.act for step in life.steps} & {Act.SIGN_OUT, Act.SWITCH, Act.READ}
        if connected and stays and life.user_id in of_user:
            connected -= 1
            life = Life(life.user_id, life.partner_id, life.session_id, life.phones, life.steps, is_connected=True)
        lives.append(life)
    return Plan(
        tuple(lives),
        conversations,
        _disruptions(random.Random(f"{seed}/kills"), seconds, kills),
        _faults(random.Random(f"{seed}/faults"), seconds),
    )


def _user(number: int) -> str:
    return f"person-{number}"


def _uuid(chance: random.Random) -> UUID:
    return UUID(bytes=chance.randbytes(16), version=4)


def _conversations(chance: random.Random, people: int) -> dict[UUID, tuple[str, ...]]:
    """Put an eighth of the people into conversations of two to four."""
    talkers = chance.sample(range(people), max(4, people // 8))
    groups = [chance.sample(talkers, chance.choice((2, 2, 3, 4))) for _ in range(max(2, len(talkers) // 3))]
    return {_uuid(chance): tuple(_user(number) for number in group) for group in groups}


def _life(chance: random.Random, number: int, seconds: float, conversations: Sequence[UUID]) -> Life:
    phones = tuple(_phone(chance) for _ in range(chance.choices((1, 2, 3), (6, 3, 1))[0]))
    steps = _fast(chance, seconds)
    due = max((step.due for step in steps), default=0.0)
    around = due if due < seconds else seconds * 0.6
    moves = chance.random()
    if moves < 0.08:
        leaves = chance.uniform(max(around - 10, 0.5), around + 2)
        phone = chance.randrange(len(phones))
        steps.append(Step(leaves, Act.SIGN_OUT, phone=phone))
        if chance.random() < 0.5:
            steps.append(Step(leaves + chance.uniform(1, 10), Act.SIGN_IN, phone=phone))
    elif moves < 0.16:
        leaves = chance.uniform(max(around - 10, 0.5), around + 2)
        steps.append(Step(leaves, Act.SWITCH))
        if chance.random() < 0.4:
            steps.append(Step(leaves + chance.uniform(2, 12), Act.SIGN_IN))
    for conversation_id in conversations:
        steps += [
            Step(chance.uniform(0, seconds), Act.WRITE, id=conversation_id, message_id=_uuid(chance))
            for _ in range(chance.choice((0, 0, 1, 1, 2)))
        ]
    if conversations and moves > 0.7:
        steps += [Step(chance.uniform(0, seconds), Act.READ) for _ in range(2)]
    session_id = _uuid(chance)
    return Life(_user(number), _user(number ^ 1), session_id, phones, tuple(sorted(steps, key=lambda s: s.at)))


def _phone(chance: random.Random) -> PlannedPhone:
    if chance.random() < 0.5:
        return PlannedPhone("apns", chance.randbytes(32).hex(), _uuid(chance))
    return PlannedPhone("fcm", f"fcm-{chance.randbytes(60).hex()}", _uuid(chance))


def _fast(chance: random.Random, seconds: float) -> list[Step]:
    """Plan somebody's fast: most sleep on, a seventh are reminded, as many end, cancel or move theirs."""
    kind = chance.random()
    if kind < 0.08:
        return []
    began = 0.0 if chance.random() < 0.7 else chance.uniform(0, seconds * 0.5)
    due = began + READY + chance.uniform(0, max(seconds - began - READY, 1))
    if kind < 0.7:
        return [Step(began, Act.START, due=LATER)]
    steps = [Step(began, Act.START, due=due)]
    if kind < 0.84:
        return steps
    if kind < 0.92:
        ends = max(chance.uniform(due - 8, due + 1), began + 0.2)
        return [*steps, Step(ends, chance.choice((Act.END, Act.CANCEL)))]
    moves = max(chance.uniform(due - 8, due + 1), began + 0.2)
    to = LATER if chance.random() < 0.4 else moves + READY + chance.uniform(0, seconds / 3)
    return [*steps, Step(moves, Act.MOVE, due=to)]


def _disruptions(chance: random.Random, seconds: float, count: int) -> tuple[Disruption, ...]:
    """Choose what is killed, frozen and cut: each target in each way before one comes again."""
    every = [
        *((target, how) for target in TARGETS for how in (Disturbance.KILL, Disturbance.FREEZE)),
        ("listener", Disturbance.CUT),
    ]
    chosen: list[tuple[str, Disturbance]] = []
    while len(chosen) < count:
        chance.shuffle(every)
        chosen += every
    return tuple(
        sorted(
            (
                Disruption(
                    chance.uniform(1, seconds), target, how, chance.uniform(0, 1.5 if how is Disturbance.KILL else 5)
                )
                for target, how in chosen[:count]
            ),
            key=lambda disruption: disruption.at,
        )
    )


def _faults(chance: random.Random, seconds: float) -> tuple[PlannedFault, ...]:
    """Plan one fault after another for each provider."""
    unavailable: Mapping[str, object] = {"fault": "answer", "share": 0.2}
    kinds: Sequence[Mapping[str, object]] = (
        unavailable,
        {"fault": "slow", "delay": 2.0, "share": 0.1},
        {"fault": "silent", "share": 0.03},
        {"fault": "reset", "processed": True, "share": 0.1},
        {"fault": "close", "processed": True, "share": 0.03},
        {"fault": "accept_then_fail", "share": 0.1},
        {"fault": "goaway", "share": 0.05},
        {"fault": "refuse_connections", "for_seconds": 2.0},
    )
    planned = []
    for provider in ("apns", "fcm"):
        order = chance.sample(kinds, len(kinds))
        marks = [seconds * step / len(order) for step in range(len(order) + 1)]
        for kind, (since, until) in zip(order, pairwise(marks), strict=True):
            fields: dict[str, object] = {"provider": provider, "for_seconds": (until - since) * 0.6, **kind}
            if kind is unavailable and provider == "apns":
                fields |= {"status": 503, "reason": "ServiceUnavailable"}
            elif kind is unavailable:
                fields |= {"error_code": "UNAVAILABLE"}
            if "share" in fields:
                fields["seed"] = chance.randrange(2**31)
            planned.append(PlannedFault(since, tuple(fields.items())))
    return tuple(sorted(planned, key=lambda fault: fault.at))
