"""Which refusals are counted by user, and how many users they belong to.

One user may own many tokens and cause many calls; what moves a switch or wakes a person is how many users are hit.
`push/apns_verdicts.py` and `push/fcm_verdicts.py` say what each reason means for one push.
"""

from dataclasses import dataclass
from datetime import timedelta

from domain.push import Route

LATELY = timedelta(minutes=15)  # since pushes were due, or died
TOKEN_ERRORS = frozenset(
    {
        "Unregistered",
        "ExpiredToken",
        "BadDeviceToken",
        "DeviceTokenNotForTopic",
        "UNREGISTERED",
        "INVALID_ARGUMENT_TOKEN",
        "SENDER_ID_MISMATCH",
    }
)
UNCALLED_FOR_US = frozenset({"app_not_configured", "oauth_refused"})  # there is no call that could have been refused


@dataclass(frozen=True, slots=True)
class Refusals:
    """Pushes whose token was refused, or which were refused for a fault of ours, and whose they are."""

    pushes: int
    users: int
    largest_user_id: str  # to whom most of them belong
    largest_pushes: int


@dataclass(frozen=True, slots=True)
class Answered:
    """Users on one route whose pushes, due lately, came to something."""

    route: Route
    users: int
    token_errors: int  # of these, whose token was refused
    rejected: int  # of these, whose push was refused for a fault of ours
    refusals: Refusals | None  # None where there were none


@dataclass(frozen=True, slots=True)
class Refused:
    """Pushes on one route that are refused, or died refused, for our credentials; due within the hour."""

    route: Route
    reason: str
    pushes: int
    users: int
