"""What can be wrong with a request, as exceptions that the API turns into problem+json."""

from dataclasses import dataclass
from datetime import timedelta


class DomainError(Exception):
    """A request cannot be served as it is."""


class InvalidField(DomainError):
    """A field has a value that the rules forbid."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


class NotFound(DomainError):
    """Nothing of that kind is the caller's."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"There is no such {kind}.")


class CursorTooOld(DomainError):
    """The log no longer holds what came right after the cursor."""

    def __init__(self, horizon: int) -> None:
        super().__init__(
            "The log no longer holds items this old. Nothing is lost: read /v1/conversations with their messages and "
            f"/v1/fasting-sessions again, then continue from cursor {horizon}."
        )
        self.horizon = horizon


class Conflict(DomainError):
    """The request contradicts what was accepted before."""

    def __init__(self, code: str, detail: str, reason: str | None = None) -> None:
        super().__init__(detail)
        self.code = code  # stable, kebab-case: becomes the problem's type
        self.reason = reason  # stable, where one code has several


class Outdated(DomainError):
    """The request was made for a revision that is not the newest."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code  # stable, kebab-case: becomes the problem's type


class LimitReached(DomainError):
    """So much was asked for lately that this has to wait."""

    def __init__(self, detail: str, retry_after: timedelta, code: str = "too-many-requests") -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.code = code  # stable, kebab-case: becomes the problem's type


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
