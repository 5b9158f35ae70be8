"""The circuit breaker of one route: it judges a provider by the outcomes of calls. The clock is passed in.

As usual, *closed* lets calls through, *open* lets none through, and *half open* waits for one call that probes.
It counts users (by their digests), not calls: all refusals of one user count once. The same holds while it is open:
its cause and the length of its rest change with what three users meet.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

USERS = 3  # who were refused, with no acceptance since the first of them
IN_A_ROW = 6  # calls of theirs that have to fail, where others were accepted a moment before, or connections broke
SEVERAL = 6  # users who met different kinds of trouble
LATELY = 1.0  # seconds; a younger acceptance contradicts three refusals, but not six
MOMENT = 0.02  # seconds; a connection that breaks fails all its calls in one moment, which counts as one call
WINDOW = 600.0  # seconds; an older refusal does not count
LONGEST_FLOOR = 600.0  # seconds; a provider may ask for a day, but a probe is one call
_SHORTENED = 0.5  # of the time left to a waiting push; a rest ends by then


class State(StrEnum):
    """The states of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Cause(StrEnum):
    """Why a breaker opens."""

    OUTAGE = "outage"
    THROTTLED = "throttled"
    MISCONFIGURED = "misconfigured"


class TroubleScope(Enum):
    """What trouble is about."""

    ROUTE = auto()  # the answer names the route, so one is enough
    CALL = auto()  # one push, or one use of our credentials: other users have to meet it, too
    CONNECTION = auto()  # one connection, however many calls failed with it


@dataclass(frozen=True, slots=True)
class Trouble:
    """What the breaker has to know about a failed call."""

    cause: Cause
    reason: str
    scope: TroubleScope
    retry_after: float | None = None  # what the provider asked for, in seconds; obeyed up to LONGEST_FLOOR
    is_advised: bool = False  # its general advice, not this answer: a push that would expire may shorten it


@dataclass(frozen=True, slots=True)
class Rest:
    """How long a breaker stays open, in seconds: the first time, and at most, after failed probes."""

    first: float
    longest: float


@dataclass(frozen=True, slots=True)
class BreakerPermit:
    """Permission to call, given by a breaker in its state of that moment."""

    generation: int
    is_fresh: bool = False  # a probe of a user who is not among the last refused


@dataclass(slots=True)
class _Refused:
    """The users who met one cause of trouble since the last acceptance."""

    users: dict[int, tuple[float, Trouble]] = field(default_factory=dict)  # their last trouble and its time, in order
    calls: int = 0  # of these users


@dataclass(frozen=True, slots=True)
class _Wait:
    """How long the provider asked one user to wait."""

    seconds: float
    is_advised: bool


class Breaker:
    """Opens on trouble, closes when a push is accepted. Calls from before it last opened or closed change little."""

    def __init__(self, rests: Mapping[Cause, Rest], chance: Callable[[], float]) -> None:
        self.cause: Cause | None = None  # what three users met, or what named the route; `reason` is the provider's
        self.reason: str | None = None
        self.open_since: float | None = None
        self.open_until = 0.0
        self._rests = rests
        self._chance = chance
        self._generation = 0
        self._openings = 0  # in a row: the first, and each failed probe that three users' troubles confirm
        self._lone_probes = 0  # failed probes since that fewer confirm: they prolong the rest of these users alone
        self._probing = self.is_fresh_probing = False
        self._fresh_from: float | None = None  # when users not among the last refused may probe; None: no sooner
        self._answered: set[int] = set()  # users whose probes since the last rest were answered about themselves
        self._refused_last: deque[int] = deque(maxlen=USERS)  # users, the latest last
        self._troubles: dict[int, Trouble] = {}  # of the last three refused users, the latest last
        self._opened_at = 0.0  # last
        self._not_before = 0.0  # the end of the rest that the provider asked for
        self._is_named = False  # the provider's answer named the whole route
        self._refused: dict[Cause, _Refused] = {}  # since the last acceptance
        self._last_moment = self._accepted_at = float("-inf")

    def state(self, now: float) -> State:
        """Return the present state."""
        if self.open_since is None:
            return State.CLOSED
        return State.OPEN if now < self.next_probe_at else State.HALF_OPEN

    @property
    def is_probing(self) -> bool:
        """Whether a probe is under way."""
        return self._probing or self.is_fresh_probing

    @property
    def next_probe_at(self) -> float:
        """When the first push of any user may probe."""
        return self.open_until if self._fresh_from is None else min(self._fresh_from, self.open_until)

    def allows(self, now: float, user: int) -> bool:
        """Whether a call of this user may start: any while closed, and one as a probe after a rest.

        The probe of a user who was refused before may hang; it does not block a user who was not.
        """
        if self.open_since is None:
            return True
        is_blocked = self.is_fresh_probing or (self._probing and not self.is_fresh(user))
        return now >= self.rests_until(user) and not is_blocked

    def rests_until(self, user: int) -> float:
        """When a push of this user may probe."""
        return self.next_probe_at if self.is_fresh(user) else self.open_until

    def admit(self, user: int) -> BreakerPermit:
        """Let a call of this user through; the caller has checked `allows`."""
        if self.open_since is None or not self.is_fresh(user):
            self._probing = self.open_since is not None
            return BreakerPermit(self._generation)
        self.is_fresh_probing = True
        return BreakerPermit(self._generation, is_fresh=True)

    def is_valid(self, breaker_permit: BreakerPermit) -> bool:
        """Whether the call may still be made: not if the breaker has opened since."""
        return self.open_since is None or breaker_permit.generation == self._generation

    def is_probe(self, breaker_permit: BreakerPermit) -> bool:
        """Whether this permits the one call that probes the route."""
        return self.open_since is not None and breaker_permit.generation == self._generation

    def unused(self, breaker_permit: BreakerPermit) -> None:
        """Take an unused permit back: the next call is the probe."""
        if breaker_permit.generation != self._generation:
            return
        if breaker_permit.is_fresh:
            self.is_fresh_probing = False
        else:
            self._probing = False

    def succeeded(self, breaker_permit: BreakerPermit, now: float) -> None:
        """Note an acceptance. It contradicts refusals of others, even of calls that began later."""
        self._accepted_at = now
        if self.open_since is None:
            self._forget_troubles()
        elif breaker_permit.generation == self._generation or not self._is_named:
            self.reset()

    def answered(self, breaker_permit: BreakerPermit, user: int) -> None:
        """Note an answer about one push or token: as a probe it decides nothing, unless three users got one."""
        if self.is_probe(breaker_permit):
            self._answered.add(user)
            if len(self._answered) == USERS:
                self.reset()

    def failed(self, breaker_permit: BreakerPermit, now: float, trouble: Trouble, user: int) -> None:
        """Note the trouble of a call of this user."""
        is_of_before, is_open = breaker_permit.generation != self._generation, self.open_since is not None
        if is_of_before and not is_open:
            return
        is_probe = is_open and not is_of_before
        if trouble.scope is TroubleScope.CONNECTION and not self._is_another_moment(now) and not is_probe:
            return
        wait = self._note(trouble, user)
        if is_of_before:
            if wait is not None and not wait.is_advised:
                self._not_before = max(self._not_before, now + wait.seconds)
                self.open_until = max(self.open_until, self._not_before)
        elif is_probe:
            self._go_on(now, trouble, user, wait)
        elif (agreed := self._agreed(now, trouble, user)) is not None:
            self._refused_last.extend({other: None for refused in self._refused.values() for other in refused.users})
            self.open_since, self.cause, self.reason = now, agreed.cause, agreed.reason
            self._openings = 1
            self._is_named = agreed.scope is TroubleScope.ROUTE
            self._rest(now, wait, USERS)

    def shorten(self, now: float, left: float) -> None:
        """End the rest well before a waiting push expires, in `left` seconds.

        It stays at least as long as the provider asked for, and as the shortest of all rests.
        """
        if self.open_since is None or self.is_probing:
            return
        shortest = self._opened_at + self._shortest
        self.open_until = max(self._not_before, shortest, min(self.open_until, now + left * _SHORTENED))

    def reset(self) -> None:
        """Close, and forget all trouble."""
        self.cause = self.reason = self.open_since = None
        self._generation += 1
        self._openings = self._lone_probes = 0
        self._probing = self.is_fresh_probing = False
        self._answered.clear()
        self._refused_last.clear()
        self._forget_troubles()

    @property
    def _shortest(self) -> float:
        return min(rest.first for rest in self._rests.values())

    def is_fresh(self, user: int) -> bool:
        """Whether this user is not among the last refused."""
        return not self._is_named and user not in self._refused_last

    def _is_another_moment(self, now: float) -> bool:
        if now - self._last_moment < MOMENT:
            return False
        self._last_moment = now
        return True

    def _forget_troubles(self) -> None:
        self._refused.clear()
        self._troubles.clear()

    def _note(self, trouble: Trouble, user: int) -> _Wait | None:
        """Note a user's trouble; returns the wait that the provider asked of three users, or of the whole route."""
        if trouble.scope is TroubleScope.ROUTE:
            self._troubles.clear()
            return _asked_wait(trouble)
        self._troubles.pop(user, None)
        self._troubles[user] = trouble
        if len(self._troubles) > USERS:
            del self._troubles[next(iter(self._troubles))]
        waits = [wait for each in self._troubles.values() if (wait := _asked_wait(each)) is not None]
        return min(waits, key=lambda each: each.seconds) if len(waits) == USERS else None

    def _agreed(self, now: float, trouble: Trouble, user: int) -> Trouble | None:
        """Return the trouble that enough users met lately, with no acceptance since.

        That is three users with one cause. Where causes differ, it is six, and the cause that most of them met.
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

    def _go_on(self, now: float, trouble: Trouble, user: int, wait: _Wait | None) -> None:
        """Rest again after a failed probe.

        What fewer than three users meet prolongs their rest alone: another user may probe soon.
        """
        self._is_named = trouble.scope is TroubleScope.ROUTE
        is_new = user not in self._refused_last
        self._refused_last.append(user)
        is_another_cause = self._explain(trouble)
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
        self._rest(now, wait, agreeing)

    def _explain(self, trouble: Trouble) -> bool:
        """Set cause and reason anew where the trouble names the route, or the last three users met something else.

        Returns whether the cause has changed.
        """
        met = [trouble] if self._is_named else list(self._troubles.values())
        if not self._is_named and len(met) < USERS:
            return False
        causes, reasons = {each.cause for each in met}, {each.reason for each in met}
        if len(causes) > 1 or (self.cause in causes and len(reasons) > 1):
            return False
        before, self.cause, self.reason = self.cause, trouble.cause, _most_met(met).reason
        return before is not self.cause

    def _rest(self, now: float, wait: _Wait | None, agreeing: int) -> None:
        """Begin a rest. Where fewer than three users agree, a user who is not among them may probe soon."""
        assert self.cause is not None
        rest = self._rests[self.cause]
        seconds: float = min(rest.longest, rest.first * 2 ** min(self._openings - 1 + self._lone_probes, 16))
        seconds *= 1 - self._chance() / 4  # so that workers do not all probe at once
        self._opened_at = now
        self._not_before = now if wait is None or wait.is_advised else now + wait.seconds
        if wait is not None:
            seconds = max(seconds, wait.seconds + rest.first * self._chance())
        self.open_until = now + seconds
        self._fresh_from = None if agreeing >= USERS else now + self._shortest * agreeing
        self._generation += 1
        self._probing = self.is_fresh_probing = False
        self._answered.clear()


def _asked_wait(trouble: Trouble) -> _Wait | None:
    if trouble.retry_after is None:
        return None
    return _Wait(min(trouble.retry_after, LONGEST_FLOOR), trouble.is_advised)


def _most_met(troubles: Collection[Trouble]) -> Trouble:
    """Return the latest trouble of the most frequent reason."""
    count = Counter(each.reason for each in troubles)
    return max(reversed(list(troubles)), key=lambda each: count[each.reason])
