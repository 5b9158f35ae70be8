"""The circuit breaker of one gate: judges a provider by what calls come to. The clock is passed in.

In the usual words: *closed* lets calls through, *open* lets none through, *half open* waits for the one that probes.
It counts users (their digests), never calls: whatever one of them owns or does, their refusals are one voice.
The same holds while it is open: why it is, and how long it rests, changes with what three users meet.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
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


class TroubleScope(Enum):
    """What trouble says about a route."""

    ROUTE = auto()  # it names the route, so it is enough alone
    CALL = auto()  # about one push, or one try of our credentials: others have to agree
    CONNECTION = auto()  # about one connection, whatever number of calls it took with it


@dataclass(frozen=True, slots=True)
class Trouble:
    """What the breaker has to know of a call that failed."""

    cause: Cause
    reason: str
    scope: TroubleScope
    retry_after: float | None = None  # the provider's own word, in seconds; believed up to LONGEST_FLOOR
    is_advised: bool = False  # that is its general advice, and not what it asked for: what waits may hurry it


@dataclass(frozen=True, slots=True)
class Rest:
    """How long a breaker stays open, in seconds: the first time, and at most, after probes that failed."""

    first: float
    longest: float


@dataclass(frozen=True, slots=True)
class BreakerPermit:
    """Leave to call, given by a breaker as it stood then."""

    generation: int
    is_fresh: bool = False  # a probe of a user who was not among those refused last


@dataclass(slots=True)
class _Refused:
    """Who met one kind of trouble since the last acceptance."""

    users: dict[int, tuple[float, Trouble]] = field(default_factory=dict)  # when last, and what; the latest last
    calls: int = 0  # of theirs


@dataclass(frozen=True, slots=True)
class _Wait:
    """How long the provider asked one user to wait."""

    seconds: float
    is_advised: bool


class Breaker:
    """Opens on trouble, closes when a push is accepted. Trouble of calls of an earlier generation changes nothing."""

    def __init__(self, rests: Mapping[Cause, Rest], chance: Callable[[], float]) -> None:
        self.cause: Cause | None = None  # what three users met, or what named the route; with the provider's reason
        self.reason: str | None = None
        self.open_since: float | None = None
        self.open_until = 0.0
        self._rests = rests
        self._chance = chance
        self._generation = 0
        self._openings = 0  # in a row: the first, and each probe that added to what three users agree on
        self._lone_probes = 0  # probes since that were refused to fewer: they prolong the rest of these users alone
        self._probing = self.is_fresh_probing = False
        self._fresh_from: float | None = None  # when others than the last who were refused may probe; None: no sooner
        self._refused_last: deque[int] = deque(maxlen=USERS)  # whose calls were refused last
        self._troubles: dict[int, Trouble] = {}  # what the last three users who were refused met, the latest last
        self._opened_at = 0.0  # last
        self._not_before = 0.0  # the end of the rest that the provider asked for
        self._is_named = False  # the provider said itself that all of the route is meant
        self._refused: dict[Cause, _Refused] = {}  # since the last acceptance
        self._last_moment = self._accepted_at = float("-inf")

    def state(self, now: float) -> State:
        """Tell where it stands."""
        if self.open_since is None:
            return State.CLOSED
        return State.OPEN if now < self.next_probe_at else State.HALF_OPEN

    @property
    def next_probe_at(self) -> float:
        """Tell when the first push may try an open one, whoever's it is."""
        return self.open_until if self._fresh_from is None else min(self._fresh_from, self.open_until)

    def allows(self, now: float, user: int) -> bool:
        """Whether a call of this user may start: always while closed, and one as a probe after a rest.

        A probe of somebody who was refused before, whose calls may hang, holds up nobody who was not.
        """
        if self.open_since is None:
            return True
        is_held_up = self.is_fresh_probing or (self._probing and not self._is_fresh(user))
        return now >= self.rests_until(user) and not is_held_up

    def rests_until(self, user: int) -> float:
        """Tell when a push of this user may try an open one."""
        return self.next_probe_at if self._is_fresh(user) else self.open_until

    def admit(self, user: int) -> BreakerPermit:
        """Let a call of this user through; the caller has asked."""
        if self.open_since is None or not self._is_fresh(user):
            self._probing = self.open_since is not None
            return BreakerPermit(self._generation)
        self.is_fresh_probing = True
        return BreakerPermit(self._generation, is_fresh=True)

    def is_valid(self, breaker_permit: BreakerPermit) -> bool:
        """Whether the call may still be made: not if the breaker opened meanwhile."""
        return self.open_since is None or breaker_permit.generation == self._generation

    def is_probe(self, breaker_permit: BreakerPermit) -> bool:
        """Whether this is leave for the one call that tries the route."""
        return self.open_since is not None and breaker_permit.generation == self._generation

    def unused(self, breaker_permit: BreakerPermit) -> None:
        """Take back leave that was not used: the next one is the probe."""
        if breaker_permit.generation != self._generation:
            return
        if breaker_permit.is_fresh:
            self.is_fresh_probing = False
        else:
            self._probing = False

    def succeeded(self, breaker_permit: BreakerPermit, now: float) -> None:
        """Take note that a push was accepted. It contradicts refusals of others, though its call began before them."""
        self._accepted_at = now
        if self.open_since is None:
            self._agree_no_more()
        elif breaker_permit.generation == self._generation or not self._is_named:
            self.reset()

    def answered(self, breaker_permit: BreakerPermit) -> None:
        """Take note of an answer about one push: it tells that the provider is there, and nothing else."""
        if self.is_probe(breaker_permit):
            self.reset()

    def failed(self, breaker_permit: BreakerPermit, now: float, trouble: Trouble, user: int) -> None:
        """Take note of trouble, and whose push met it."""
        is_of_before, is_shut = breaker_permit.generation != self._generation, self.open_since is not None
        if is_of_before and not is_shut:
            return
        is_probe = is_shut and not is_of_before
        if trouble.scope is TroubleScope.CONNECTION and not self._is_another_moment(now) and not is_probe:
            return
        word = self._note(trouble, user)
        if is_of_before:
            if word is not None and not word.is_advised:
                self._not_before = max(self._not_before, now + word.seconds)
                self.open_until = max(self.open_until, self._not_before)
        elif is_probe:
            self._go_on(now, trouble, user, word)
        elif (agreed := self._agreed(now, trouble, user)) is not None:
            self._refused_last.extend({other: None for refused in self._refused.values() for other in refused.users})
            self.open_since, self.cause, self.reason = now, agreed.cause, agreed.reason
            self._openings = 1
            self._is_named = agreed.scope is TroubleScope.ROUTE
            self._rest(now, word, USERS)

    def shorten(self, now: float, left: float) -> None:
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
        self._openings = self._lone_probes = 0
        self._probing = self.is_fresh_probing = False
        self._refused_last.clear()
        self._agree_no_more()

    @property
    def _shortest(self) -> float:
        return min(rest.first for rest in self._rests.values())

    def _is_fresh(self, user: int) -> bool:
        return not self._is_named and user not in self._refused_last

    def _is_another_moment(self, now: float) -> bool:
        if now - self._last_moment < MOMENT:
            return False
        self._last_moment = now
        return True

    def _agree_no_more(self) -> None:
        self._refused.clear()
        self._troubles.clear()

    def _note(self, trouble: Trouble, user: int) -> _Wait | None:
        """Note what this user met; gives how long the provider asked all to wait: asked of three, or said of all."""
        if trouble.scope is TroubleScope.ROUTE:
            self._troubles.clear()
            return _asked_wait(trouble)
        self._troubles.pop(user, None)
        self._troubles[user] = trouble
        if len(self._troubles) > USERS:
            del self._troubles[next(iter(self._troubles))]
        words = [word for each in self._troubles.values() if (word := _asked_wait(each)) is not None]
        return min(words, key=lambda each: each.seconds) if len(words) == USERS else None

    def _agreed(self, now: float, trouble: Trouble, user: int) -> Trouble | None:
        """Give the trouble that enough users met, of late and with none accepted since.

        That is three of one cause. Where causes differ it is six, and it is what most of them met.
        """
        if trouble.scope is TroubleScope.ROUTE:
            return trouble
        for refused in self._refused.values():
            for other in [other for other, (at, _) in refused.users.items() if at < now - WINDOW]:
                del refused.users[other]
            if not refused.users:
                refused.calls = 0
        its = self._refused.setdefault(trouble.cause, _Refused())
        its.users.pop(user, None)
        its.users[user] = now, trouble
        its.calls += 1
        is_doubted = trouble.scope is TroubleScope.CONNECTION or now - self._accepted_at < LATELY
        if len(its.users) >= USERS and (its.calls >= IN_A_ROW or not is_doubted):
            return _most_met([each for _, each in its.users.values()])
        everybody = set().union(*(refused.users for refused in self._refused.values()))
        if len(everybody) < SEVERAL:
            return None
        most = max(self._refused.values(), key=lambda refused: len(refused.users))
        return _most_met([each for _, each in most.users.values()])

    def _go_on(self, now: float, trouble: Trouble, user: int, word: _Wait | None) -> None:
        """Rest again after a probe that was refused.

        What fewer than three users meet prolongs the rest of nobody else: another may try soon.
        """
        self._is_named = trouble.scope is TroubleScope.ROUTE
        is_new = user not in self._refused_last
        self._refused_last.append(user)
        is_another_cause = self._tell(trouble)
        is_odd, odd = (
            trouble.cause is not self.cause,
            sum(each.cause is not self.cause for each in self._troubles.values()),
        )
        agreeing = USERS if self._is_named else min(len(set(self._refused_last)), odd if is_odd else USERS)
        if is_another_cause:
            self._openings, self._lone_probes = 1, 0
        elif agreeing == USERS:
            self._openings, self._lone_probes = self._openings + 1, 0
        elif not (is_odd and is_new):
            self._lone_probes += 1
        self._rest(now, word, agreeing)

    def _tell(self, trouble: Trouble) -> bool:
        """Say why it is open, as before unless this names the route or the last three users met something else.

        Tells whether it is another cause.
        """
        met = [trouble] if self._is_named else list(self._troubles.values())
        if not self._is_named and len(met) < USERS:
            return False
        causes, reasons = {each.cause for each in met}, {each.reason for each in met}
        if len(causes) > 1 or (self.cause in causes and len(reasons) > 1):
            return False
        told, self.cause, self.reason = self.cause, trouble.cause, _most_met(met).reason
        return told is not self.cause

    def _rest(self, now: float, word: _Wait | None, agreeing: int) -> None:
        """Begin a rest; others than the last who were refused may end it soon, where these are fewer than three."""
        assert self.cause is not None
        rest = self._rests[self.cause]
        seconds: float = min(rest.longest, rest.first * 2 ** min(self._openings - 1 + self._lone_probes, 16))
        seconds *= 1 - self._chance() / 4  # so that workers do not all probe at once
        self._opened_at = now
        self._not_before = now if word is None or word.is_advised else now + word.seconds
        if word is not None:
            seconds = max(seconds, word.seconds + rest.first * self._chance())
        self.open_until = now + seconds
        self._fresh_from = None if agreeing >= USERS else now + self._shortest * agreeing
        self._generation += 1
        self._probing = self.is_fresh_probing = False


def _asked_wait(trouble: Trouble) -> _Wait | None:
    asked = trouble.retry_after
    return None if asked is None else _Wait(min(asked, LONGEST_FLOOR), trouble.is_advised)


def _most_met(troubles: Collection[Trouble]) -> Trouble:
    """Give the trouble of the reason that most users met, the latest of those that as many met."""
    count = Counter(each.reason for each in troubles)
    return max(reversed(list(troubles)), key=lambda each: count[each.reason])
