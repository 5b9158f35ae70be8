"""The circuit breaker of one gate: judges a provider by what calls come to. The clock is passed in.

In the usual words: *closed* lets calls through, *open* lets none through, *half open* waits for the one that probes.
It counts users (their digests), never calls: whatever one of them owns or does, their refusals are one voice.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

USERS = 3  # who were refused, with no acceptance since the first of them
IN_A_ROW = 6  # calls of theirs, where others were accepted a moment before, or connections broke
SEVERAL = 6  # users who met different kinds of trouble
LATELY = 1.0  # seconds; an acceptance as young as that contradicts three refusals, but not six
MOMENT = 0.02  # seconds; a connection that breaks fails all its calls in one moment, which says no more than one call
WINDOW = 600.0  # seconds; a refusal that is older says nothing about now
LONGEST_FLOOR = 600.0  # seconds; a provider may ask for a day, but a probe is one call
_HURRY = 0.5  # of the time left to what waits longest: a rest is over by then


class State(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Cause(StrEnum):
    """Why a breaker opens."""

    OUTAGE = "outage"
    THROTTLED = "throttled"
    MISCONFIGURED = "misconfigured"


class Bearing(Enum):
    """What trouble says about a route."""

    WHOLE = auto()  # it names the route, so it is enough alone
    CALL = auto()  # about one push, or one try of our credentials: others have to agree
    CONNECTION = auto()  # about one connection, whatever number of calls it took with it


@dataclass(frozen=True, slots=True)
class Trouble:
    """What the breaker has to know of a call that failed."""

    cause: Cause
    reason: str
    bearing: Bearing
    retry_after: float | None = None  # the provider's own word, in seconds; believed up to LONGEST_FLOOR
    is_usual: bool = False  # that is its general advice, and not what it asked for: what waits may hurry it


@dataclass(frozen=True, slots=True)
class Rest:
    """How long a breaker stays open, in seconds: the first time, and at most, after probes that failed."""

    first: float
    longest: float


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to call, given by a breaker as it stood then."""

    generation: int
    is_fresh: bool = False  # a probe of a user who was not among those refused last


@dataclass(slots=True)
class _Refused:
    """Who met one kind of trouble since the last acceptance."""

    last: Trouble
    users: dict[int, float] = field(default_factory=dict)  # and when last
    calls: int = 0  # of theirs


@dataclass(frozen=True, slots=True)
class _Word:
    """How long the provider asked one user to wait."""

    seconds: float
    is_usual: bool


class Breaker:
    """Opens on trouble, closes when a push is accepted. Trouble of calls of an earlier generation changes nothing."""

    def __init__(self, rests: Mapping[Cause, Rest], chance: Callable[[], float]) -> None:
        self.cause: Cause | None = None  # of the last opening, with the provider's reason
        self.reason: str | None = None
        self.open_since: float | None = None
        self.open_until = 0.0
        self._rests = rests
        self._chance = chance
        self._generation = 0
        self._openings = 0  # in a row
        self._probing = self.is_fresh_probing = False
        self._fresh_from: float | None = None  # when others than the last who were refused may probe; None: no sooner
        self._voices: deque[int] = deque(maxlen=USERS)  # whose calls were refused last
        self._words: dict[int, _Word | None] = {}  # what the last users who were refused were told, the latest last
        self._opened_at = 0.0  # last
        self._not_before = 0.0  # the end of the rest that the provider asked for
        self._is_named = False  # the provider said itself that all of the route is meant
        self._refused: dict[Cause, _Refused] = {}  # since the last acceptance
        self._last_moment = self._accepted_at = float("-inf")

    def state(self, now: float) -> State:
        """Tell where it stands."""
        if self.open_since is None:
            return State.CLOSED
        return State.OPEN if now < self.open_until else State.HALF_OPEN

    def lets_through(self, now: float, user: int) -> bool:
        """Whether a call of this user may start: always while closed, and one as a probe after a rest.

        A probe of somebody who was refused before, whose calls may hang, holds up nobody who was not.
        """
        if self.open_since is None:
            return True
        is_held_up = self.is_fresh_probing or (self._probing and not self._is_fresh(user))
        return now >= self.rests_until(user) and not is_held_up

    def rests_until(self, user: int) -> float:
        """Tell when a push of this user may try an open one."""
        if self._fresh_from is None or not self._is_fresh(user):
            return self.open_until
        return min(self._fresh_from, self.open_until)

    def admit(self, user: int) -> Ticket:
        """Let a call of this user through; the caller has asked."""
        if self.open_since is None or not self._is_fresh(user):
            self._probing = self.open_since is not None
            return Ticket(self._generation)
        self.is_fresh_probing = True
        return Ticket(self._generation, is_fresh=True)

    def still_good(self, ticket: Ticket) -> bool:
        """Whether the call may still be made: not if the breaker opened meanwhile."""
        return self.open_since is None or ticket.generation == self._generation

    def is_probe(self, ticket: Ticket) -> bool:
        """Whether this is leave for the one call that tries the route."""
        return self.open_since is not None and ticket.generation == self._generation

    def given_back(self, ticket: Ticket) -> None:
        """Take back leave that was not used: the next one is the probe."""
        if ticket.generation != self._generation:
            return
        if ticket.is_fresh:
            self.is_fresh_probing = False
        else:
            self._probing = False

    def succeeded(self, ticket: Ticket, now: float) -> None:
        """Take note that a push was accepted. It contradicts refusals of others, though its call began before them."""
        self._accepted_at = now
        if self.open_since is None:
            self._agree_no_more()
        elif ticket.generation == self._generation or not self._is_named:
            self.reset()

    def answered(self, ticket: Ticket) -> None:
        """Take note of an answer about one push: it tells that the provider is there, and nothing else."""
        if self.is_probe(ticket):
            self.reset()

    def failed(self, ticket: Ticket, now: float, trouble: Trouble, user: int) -> None:
        """Take note of trouble, and whose push met it."""
        is_of_before = ticket.generation != self._generation
        if is_of_before and self.open_since is None:
            return
        word = self._hear(trouble, user)
        if is_of_before:
            if word is not None and not word.is_usual:
                self._not_before = max(self._not_before, now + word.seconds)
                self.open_until = max(self.open_until, self._not_before)
        elif self.open_since is not None:
            self._voices.append(user)
            self._open(now, trouble, word)
        elif (agreed := self._agreed(now, trouble, user)) is not None:
            self._voices.extend(other for refused in self._refused.values() for other in refused.users)
            self._open(now, agreed, word)

    def hurry(self, now: float, left: float) -> None:
        """End the rest well before the time of a push that waits is over; `left` is what it has, in seconds.

        What the provider asked for is kept, and so is the shortest of all rests.
        """
        if self.open_since is None or self._probing or self.is_fresh_probing:
            return
        shortest = self._opened_at + self._shortest
        self.open_until = max(self._not_before, shortest, min(self.open_until, now + left * _HURRY))

    def reset(self) -> None:
        """Close, and start afresh."""
        self.cause = self.reason = self.open_since = None
        self._generation += 1
        self._openings = 0
        self._probing = self.is_fresh_probing = False
        self._voices.clear()
        self._agree_no_more()

    @property
    def _shortest(self) -> float:
        return min(rest.first for rest in self._rests.values())

    def _is_fresh(self, user: int) -> bool:
        return not self._is_named and user not in self._voices

    def _agree_no_more(self) -> None:
        self._refused.clear()
        self._words.clear()

    def _hear(self, trouble: Trouble, user: int) -> _Word | None:
        """Note how long the provider asked this user to wait; gives what holds for all: asked of three, or of all."""
        asked = trouble.retry_after
        word = None if asked is None else _Word(min(asked, LONGEST_FLOOR), trouble.is_usual)
        if trouble.bearing is Bearing.WHOLE:
            return word
        self._words.pop(user, None)
        self._words[user] = word
        if len(self._words) > USERS:
            del self._words[next(iter(self._words))]
        words = [each for each in self._words.values() if each is not None]
        return min(words, key=lambda each: each.seconds) if len(words) == USERS else None

    def _agreed(self, now: float, trouble: Trouble, user: int) -> Trouble | None:
        """Give the trouble that enough users met, of late and with none accepted since.

        That is three of one cause. Where causes differ it is six, and it is what most of them met.
        """
        if trouble.bearing is Bearing.WHOLE:
            return trouble
        if trouble.bearing is Bearing.CONNECTION:
            if now - self._last_moment < MOMENT:
                return None
            self._last_moment = now
        for refused in self._refused.values():
            for other in [other for other, at in refused.users.items() if at < now - WINDOW]:
                del refused.users[other]
            if not refused.users:
                refused.calls = 0
        its = self._refused.setdefault(trouble.cause, _Refused(trouble))
        its.last, its.users[user] = trouble, now
        its.calls += 1
        is_doubted = trouble.bearing is Bearing.CONNECTION or now - self._accepted_at < LATELY
        if len(its.users) >= USERS and (its.calls >= IN_A_ROW or not is_doubted):
            return trouble
        everybody = set().union(*(refused.users for refused in self._refused.values()))
        most = max(self._refused.values(), key=lambda refused: len(refused.users))
        return most.last if len(everybody) >= SEVERAL else None

    def _open(self, now: float, trouble: Trouble, word: _Word | None) -> None:
        rest = self._rests[trouble.cause]
        seconds: float = min(rest.longest, rest.first * 2 ** min(self._openings, 16))
        seconds *= 1 - self._chance() / 4  # so that workers do not all probe at once
        self._opened_at = now
        self._not_before = now if word is None or word.is_usual else now + word.seconds
        if word is not None:
            seconds = max(seconds, word.seconds + rest.first * self._chance())
        if self.open_since is None:
            self.open_since = now
        self.cause, self.reason, self.open_until = trouble.cause, trouble.reason, now + seconds
        self._is_named = trouble.bearing is Bearing.WHOLE
        agreeing = len(set(self._voices))  # where they are few, they may be refused for themselves, for ever
        self._fresh_from = now + self._shortest * max(agreeing, 1) if agreeing < USERS else None
        self._generation += 1
        self._openings += 1
        self._probing = self.is_fresh_probing = False
