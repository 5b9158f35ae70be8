"""How long to wait before the next attempt: exponential, full jitter, the provider's own wait as a floor."""

from dataclasses import dataclass
from datetime import timedelta

LAST_LOOK = timedelta(seconds=5)  # before a push expires, it is tried or checked once more
_LEAST = timedelta(seconds=1)  # before that: what has just failed is not tried at once


def in_time(delay: timedelta, left: timedelta) -> timedelta | None:
    """Shorten a wait so that a push that expires in `left` is tried once more; None if no try is left."""
    if delay > left - LAST_LOOK > timedelta(0):
        return max(left - LAST_LOOK, min(delay, _LEAST))
    return delay if delay < left else None


@dataclass(frozen=True, slots=True)
class BackOff:
    """First and longest wait of one class of errors."""

    first: timedelta
    longest: timedelta

    def delay(self, attempt: int, chance: float, floor: timedelta | None) -> timedelta:
        """Say how long to wait after attempt number `attempt` (from 1); `chance` is uniform in [0, 1).

        Half of the first wait is fixed, so that a retry never follows at once; the rest is full jitter.
        """
        doublings: int = 2 ** min(attempt - 1, 16)
        ceiling = min(self.longest, self.first * doublings)
        jittered = self.first / 2 + (ceiling - self.first / 2) * chance
        return jittered if floor is None else floor + self.first * chance + max(timedelta(0), jittered - floor)
