"""What can be wrong with a request, as exceptions that the API turns into problem+json; and quotas."""

import re
from dataclasses import dataclass
from datetime import timedelta

_FORM = re.compile(r"\s*(\d+)\s*(?:/|\s+per\s+)\s*(?:(\d+)\s*)?(second|minute|hour|day|month|year)s?\s*", re.IGNORECASE)
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "month": 2_592_000, "year": 31_104_000}


class DomainError(Exception):
    """A request that cannot be served."""


class InvalidField(DomainError):
    """A field has an invalid value."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


class NotFound(DomainError):
    """The caller has no such thing."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"There is no such {kind}.")


class CursorTooOld(DomainError):
    """A user's log no longer holds the items right after the cursor."""

    def __init__(self, horizon: int) -> None:
        super().__init__(
            "The log no longer holds items this old. Nothing is lost: read /v1/conversations with their messages and "
            f"/v1/fasting-sessions again, then continue from cursor {horizon}."
        )
        self.horizon = horizon


class EventCursorTooOld(DomainError):
    """The feed of events no longer holds the events right after the cursor."""

    def __init__(self, horizon: int) -> None:
        super().__init__(f"The feed no longer holds the events after this cursor. Continue from cursor {horizon}.")
        self.horizon = horizon


class Conflict(DomainError):
    """The request contradicts an earlier one."""

    def __init__(self, code: str, detail: str, reason: str | None = None) -> None:
        super().__init__(detail)
        self.code = code  # stable, kebab-case: becomes the problem's type
        self.reason = reason  # stable, where one code has several


class Outdated(DomainError):
    """The request is for a revision that is not the newest."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code  # stable, kebab-case: becomes the problem's type


class LimitReached(DomainError):
    """Too many requests; this one has to wait."""

    def __init__(self, detail: str, retry_after: timedelta, code: str = "too-many-requests") -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.code = code  # stable, kebab-case: becomes the problem's type


@dataclass(frozen=True, slots=True)
class MessageQuota:
    """How many messages a member may post in one conversation: a burst, which refills one by one."""

    burst: int
    every: timedelta  # time in which one more is allowed

    @property
    def span(self) -> timedelta:
        """Give the time in which an empty burst refills."""
        return self.burst * self.every


@dataclass(frozen=True, slots=True)
class Quotas:
    """The limits of every user."""

    installations: int | None = None  # with an active token
    active_fasts: int | None = None  # with an end in the future
    messages: MessageQuota | None = None


def being_erased() -> Conflict:
    """Say that a person who is being erased may come back once that is done."""
    return Conflict("being-erased", "This person is being erased. Try again when the erasure is done.")


def too_many_fasts(most: int) -> Conflict:
    """Say that another fast has to end first."""
    return Conflict(
        "too-many-active-fasts", f"A user may have {most} active fasts at a time. End or cancel one of them first."
    )


def too_many_messages(retry_after: timedelta) -> LimitReached:
    """Say that a message has to wait."""
    detail = "Too many messages in this conversation. Post this one again later."
    return LimitReached(detail, retry_after, code="too-many-messages")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A number of requests in a number of seconds."""

    amount: int
    seconds: int = 60


def read_rate(text: str) -> RateLimit:
    """Read `600/minute` or `10 per 5 minutes`; raises ValueError, also for zero."""
    match = _FORM.fullmatch(text)
    limit = match and RateLimit(int(match[1]), int(match[2] or 1) * _SECONDS[match[3].lower()])
    if not limit or not limit.amount or not limit.seconds:
        raise ValueError("not a rate")
    return limit
