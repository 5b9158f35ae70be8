"""What one user may own and cause, so that nobody pays for a neighbour; None is no limit."""

from dataclasses import dataclass
from datetime import timedelta

from domain.problems import Conflict, LimitReached


@dataclass(frozen=True, slots=True)
class MessageQuota:
    """How many messages a member may post in one conversation: a burst, which fills up again one by one."""

    burst: int
    every: timedelta  # one more may be posted

    @property
    def span(self) -> timedelta:
        """How long an empty burst takes to fill up."""
        return self.burst * self.every


@dataclass(frozen=True, slots=True)
class Quotas:
    """What every user is granted."""

    installations: int | None = None  # that have an active token
    active_fasts: int | None = None  # whose end lies ahead
    messages: MessageQuota | None = None


UNLIMITED = Quotas()


def too_many_fasts(most: int) -> Conflict:
    """Tell that another fast has to end first."""
    return Conflict(
        "too-many-active-fasts", f"A user may have {most} active fasts at a time. End or cancel one of them first."
    )


def too_many_messages(retry_after: timedelta) -> LimitReached:
    """Tell that a message has to wait."""
    detail = "Too many messages in this conversation. Post this one again later."
    return LimitReached(detail, retry_after, code="too-many-messages")
