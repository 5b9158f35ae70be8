"""What a provider call can come to, and the Sender protocol that both providers implement.

An answer that no retry would change is a value. Trouble that time may cure is an exception.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, Self, TypeAlias

from domain.push import Environment, Push


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the push. Says nothing about the phone."""

    provider_id: str | None  # apns-id, or the FCM message name; None where what the provider gave has not its form


@dataclass(frozen=True, slots=True)
class Unregistered:
    """The token is dead: the provider knew it, and knows that it is gone."""

    reason: str
    since: datetime | None  # when the provider saw it die, where it says so (APNs 410)


@dataclass(frozen=True, slots=True)
class SuspectToken:
    """The token is dead, or it lives elsewhere: in the other environment, for one."""

    reason: str


@dataclass(frozen=True, slots=True)
class MismatchedToken:
    """The token belongs to another topic or project than ours."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider will never take this push; the token may be fine."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unsendable(Rejected):
    """We rejected the push ourselves: no call was made."""


TokenError = Unregistered | SuspectToken | MismatchedToken
Answer = Accepted | Rejected | TokenError


class Delivery(StrEnum):
    """What may have become of a push whose call failed."""

    NOT_SENT = "not_sent"  # no call was made
    NOT_PROCESSED = "never_processed"
    DECLINED = "declined"  # the provider answered that it is unavailable; in the field, some were taken all the same
    UNKNOWN = "unknown"


class ProviderTrouble(Exception):
    """A call failed in a way that time may cure. `reason` is a short stable code, free of tokens and content."""

    def __init__(self, reason: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after  # the floor for the next attempt
        self.is_advised = False  # that floor is the provider's general advice; this answer named none

    def or_advised(self, rest: timedelta) -> Self:
        """Give it the floor that the provider advises in general, where it has none."""
        if self.retry_after is None:
            self.retry_after, self.is_advised = rest, True
        return self


class ThrottleExtent(StrEnum):
    """Whom a throttle concerns."""

    TOKEN = "token"  # noqa: S105 (a word)
    ROUTE = "route"  # the answer names it: a project's quota, for one
    UNNAMED = "unnamed"  # the answer does not say


class Throttled(ProviderTrouble):
    """The provider asks for fewer calls."""

    def __init__(
        self, reason: str, extent: ThrottleExtent = ThrottleExtent.TOKEN, *, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(reason, retry_after=retry_after)
        self.extent = extent


class Misconfigured(ProviderTrouble):
    """Our keys, topic or project are wrong; a person has to act. Never a token's fault."""


class NotConfigured(Misconfigured):
    """We know ourselves that no call can be made on this route: the app has no credentials for the provider."""


class TokenMisconfigured(Misconfigured):
    """Something is missing on our side for this one token: Firebase has no APNs key of its app, for one.

    Says nothing about other tokens.
    """


class Unavailable(ProviderTrouble):
    """The provider could not be reached, or failed."""

    def __init__(self, reason: str, delivery: Delivery, *, retry_after: timedelta | None = None) -> None:
        super().__init__(reason, retry_after=retry_after)
        self.delivery = delivery


class AnsweredUnavailable(Unavailable):
    """The provider answered this one call that it is in trouble; no connection was lost."""


class StaleCredential(Unavailable):
    """Refused with a credential that has been renewed since; says nothing against the provider."""


class NoRoom(Unavailable):
    """No call was made, or it was turned away unread, for want of a place; says nothing against the provider.

    So it opens no breaker. A connection that failed is plain Unavailable, for whoever waited for it.
    """

    def __init__(
        self, reason: str, delivery: Delivery = Delivery.NOT_PROCESSED, *, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(reason, delivery, retry_after=retry_after)


class Paused(ProviderTrouble):
    """The gate is shut: nothing was called, and nobody is to call before."""


class ProbesNext(Paused):
    """The gate is shut, and this push is the one to try it next: `retry_after` says when."""


class ChecksAgain(Paused):
    """The gate is shut for longer, unless other credentials or a person open it: `retry_after` says when to ask."""


class AwaitsCredentials(ProviderTrouble):
    """The push was refused for our credentials, and is not sent with the same before `rest` is over.

    `retry_after` says when to ask whether they are others.
    """

    def __init__(self, reason: str, rest: timedelta, *, retry_after: timedelta) -> None:
        super().__init__(reason, retry_after=retry_after)
        self.rest = rest


class Reserved(ProviderTrouble):
    """Too many are ahead; `retry_after` says when it is likely to be this push's turn."""


Send: TypeAlias = Callable[[Push], Awaitable[Answer]]  # makes exactly one provider call; raises ProviderTrouble


class Sender(Protocol):
    """One app at one provider."""

    def lease(self, environment: Environment, user_digest: int = 0) -> AbstractAsyncContextManager[Send]:
        """Lease a stream on a live connection, and give the function that makes the one call on it.

        It is taken *before* the last check, so that nothing waits between check and call. A stream that was not used
        goes back. Raises ProviderTrouble when no stream is free in time.
        """
        ...

    async def close(self) -> None:
        """Let calls in flight finish, then close all connections."""
        ...
