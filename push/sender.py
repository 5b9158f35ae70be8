"""The outcomes of a provider call, and the Sender protocol that both providers implement.

An answer that no retry would change is a value. Trouble that time may cure is an exception:

    ProviderTrouble
        Throttled             the provider asks for fewer calls
        Misconfigured         our keys, topic or project are wrong
            NotConfigured         the app has no credentials
            TokenMisconfigured    something is missing for this token alone
        Unavailable           the provider failed, or could not be reached
            AnsweredUnavailable   it said so itself
            StaleCredential       the credential is renewed by now
            NoRoom                no stream was free; says nothing against the provider
        Paused                the route is paused or stopped
            ProbesNext            this push is the next probe
            ChecksAgain           for longer; the push checks now and then
        Reserved              too many are ahead; this push has a turn
        AwaitsCredentials     refused for our credentials; waits for others
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

    provider_id: str | None  # apns-id, or the FCM message name; None where the provider gave none in that form


@dataclass(frozen=True, slots=True)
class Unregistered:
    """The token is dead: the provider knew it, and says that it is gone."""

    reason: str
    since: datetime | None  # when it died, where the provider says so (APNs 410)


@dataclass(frozen=True, slots=True)
class SuspectToken:
    """The token is dead, or valid elsewhere, such as in the other environment."""

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
    DECLINED = "declined"  # the provider answered that it is unavailable; some were shown all the same
    UNKNOWN = "unknown"


class ProviderTrouble(Exception):
    """A call failed in a way that time may cure. `reason` is a short stable code, free of tokens and content."""

    def __init__(self, reason: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after  # the floor for the next attempt
        self.is_advised = False  # the floor is the provider's general advice; this answer named none

    def or_advised(self, rest: timedelta) -> Self:
        """Set the floor that the provider advises in general, where its answer names none."""
        if self.retry_after is None:
            self.retry_after, self.is_advised = rest, True
        return self


class ThrottleExtent(StrEnum):
    """What a throttle concerns."""

    TOKEN = "token"  # noqa: S105 (a word)
    ROUTE = "route"  # the answer names it, as with a project's quota
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
    """No call can be made: the app has no credentials for the provider."""


class TokenMisconfigured(Misconfigured):
    """Something is missing on our side for this token alone, such as its app's APNs key in Firebase."""


class Unavailable(ProviderTrouble):
    """The provider could not be reached, or failed."""

    def __init__(self, reason: str, delivery: Delivery, *, retry_after: timedelta | None = None) -> None:
        super().__init__(reason, retry_after=retry_after)
        self.delivery = delivery


class ConnectionLost(Unavailable):
    """The connection ended or died before the answer; another person's call may have been the cause."""


class AnsweredUnavailable(Unavailable):
    """The provider answered this call that it is in trouble; no connection was lost."""


class StaleCredential(Unavailable):
    """Refused with a credential that has been renewed since; says nothing against the provider."""


class NoRoom(Unavailable):
    """No stream was free, or the peer refused one more; the call was not processed.

    Says nothing against the provider, so it opens no breaker. A failed connection is plain Unavailable.
    """

    def __init__(
        self, reason: str, delivery: Delivery = Delivery.NOT_PROCESSED, *, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(reason, delivery, retry_after=retry_after)


class Paused(ProviderTrouble):
    """The route is paused or stopped: no call was made."""


class ProbesNext(Paused):
    """The route is paused, and this push is the next to probe it: `retry_after` says when."""


class ChecksAgain(Paused):
    """The route is paused or stopped for longer, unless new credentials or a person end it.

    `retry_after` says when to check.
    """


class AwaitsCredentials(ProviderTrouble):
    """The push was refused for our credentials, and is not sent with the same before `rest` is over.

    `retry_after` says when to check whether they have changed.
    """

    def __init__(self, reason: str, rest: timedelta, *, retry_after: timedelta) -> None:
        super().__init__(reason, retry_after=retry_after)
        self.rest = rest


class Reserved(ProviderTrouble):
    """Too many are ahead; `retry_after` says when this push's turn is likely."""


Until: TypeAlias = Callable[[], Awaitable[None]]
Send: TypeAlias = Callable[[Push], Awaitable[Answer]]  # makes exactly one provider call; raises ProviderTrouble


class Sender(Protocol):
    """One app at one provider."""

    def lease(
        self, environment: Environment, user_digest: int = 0, until: Until | None = None
    ) -> AbstractAsyncContextManager[Send]:
        """Lease a stream on a live connection, wait `until` the call is due, and give the function that makes it.

        It is taken *before* the last check, so that nothing waits between check and call. A stream that was not used
        goes back; one whose connection has died or gone silent by then is exchanged. Raises ProviderTrouble when no
        stream is free in time.
        """
        ...

    async def close(self) -> None:
        """Let calls in flight finish, then close all connections."""
        ...
