"""When token errors are a mass failure, which says more about us than about tokens. The clock is passed in.

It counts users, because one user can register any number of tokens, real or invented.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Threshold:
    """When token errors are a mass failure: both many, and a large share of the recent answers."""

    share: float = 0.5
    token_errors: int = 20  # of as many users
    window: timedelta = timedelta(minutes=10)
    answers: int = 200  # the last ones, of as many users


@dataclass(frozen=True, slots=True)
class MassFailure:
    """A mass failure."""

    reason: str  # the most frequent one
    token_errors: int  # users whose last answer was one
    answers: int  # users


class Record:
    """The last answer for each user to whom one route sent lately.

    A user counts once, whatever the number of their devices and calls. Instants are seconds of a monotonic clock.
    """

    def __init__(self, threshold: Threshold) -> None:
        self._threshold = threshold
        self._answers: OrderedDict[str, tuple[float, str | None]] = OrderedDict()
        self._reasons: Counter[str] = Counter()

    def accepted(self, at: float, user_id: str) -> None:
        """Record that the provider accepted a push to this user."""
        self._note(at, user_id, None)

    def token_error(self, at: float, user_id: str, reason: str) -> None:
        """Record that the provider refused a token of this user."""
        self._note(at, user_id, reason)

    def judged(self, at: float) -> MassFailure | None:
        """Judge the answers of the window that ends now; None if there is no mass failure."""
        self._forget_before(at)
        errors, answers = self._reasons.total(), len(self._answers)
        if errors < self._threshold.token_errors or errors < self._threshold.share * answers:
            return None
        [(reason, _)] = self._reasons.most_common(1)
        return MassFailure(reason, errors, answers)

    def acceptances_outnumber(self, at: float, suspects: int) -> bool:
        """Tell whether pushes of more users were accepted in the window that ends now than refused or suspected."""
        self._forget_before(at)
        errors = self._reasons.total()
        return len(self._answers) - errors > max(errors, suspects)

    def _note(self, at: float, user_id: str, reason: str | None) -> None:
        before = self._answers.pop(user_id, None)
        if before is not None and before[1] is not None:
            self._reasons[before[1]] -= 1
        self._answers[user_id] = (at, reason)
        if reason is not None:
            self._reasons[reason] += 1
        if len(self._answers) > self._threshold.answers:
            self._forget_oldest()

    def _forget_before(self, at: float) -> None:
        window = self._threshold.window.total_seconds()
        while self._answers and next(iter(self._answers.values()))[0] < at - window:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, (_, reason) = self._answers.popitem(last=False)
        if reason is not None:
            self._reasons[reason] -= 1
