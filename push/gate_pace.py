"""The pace of one gate: a token bucket whose rate may change, and ramps up after a pause. The clock is passed in."""

from math import inf

BURST = 0.1  # seconds' worth of calls that may start at once
RAMP_TO = 1000.0  # calls per second at the end of a ramp, where there is no limit
RAMP_FROM = 0.02  # of what a ramp leads to


class Pace:
    """How many calls may start: `full` per second, infinite where there is no limit, and none at first."""

    def __init__(self, now: float) -> None:
        self.full = 0.0
        self._rate = 0.0
        self._at = now
        self._level = 1.0
        self._ramp_began = self._ramp_ends = now

    def ramp_up(self, now: float, lasting: float) -> None:
        """Start again with a small part of the full rate, which grows to the whole in so many seconds."""
        self._ramp_began, self._ramp_ends = now, now + lasting

    def rate(self, now: float) -> float:
        """Tell how many calls per second may start at present."""
        if now >= self._ramp_ends:
            return self.full
        top = min(self.full, RAMP_TO)
        done = (now - self._ramp_began) / (self._ramp_ends - self._ramp_began)
        return max(top * max(RAMP_FROM, done), min(top, 1.0))

    def take(self, now: float) -> bool:
        """Take leave for one call; False when it is too early."""
        self._fill(now)
        if self._rate == inf:
            return True
        if self._level < 1 or self._rate == 0:
            return False
        self._level -= 1
        return True

    def give_back(self) -> None:
        """Return leave that was not used."""
        self._level = min(self._most, self._level + 1)

    def wait(self, now: float, count: int) -> float:
        """Tell in how many seconds so many calls will have had leave; infinite where none may start."""
        self._fill(now)
        if self._rate in (0, inf):
            return 0.0 if self._rate else inf
        return max(0.0, (count - self._level) / self._rate)

    @property
    def _most(self) -> float:
        return max(1.0, self._rate * BURST)

    def _fill(self, now: float) -> None:
        """Add what has come in since the last time, then go on at the rate of now."""
        if self._rate != inf:
            self._level = min(self._most, self._level + (now - self._at) * self._rate)
        rate = self.rate(now)
        if rate != self._rate:
            self._rate = rate
            self._level = min(self._level, self._most)
        self._at = now
