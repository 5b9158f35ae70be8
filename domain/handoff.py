"""Which phones are told of a message by push, decided as late as possible."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from domain.kinds import RULES, Kind
from domain.last_check import unwanted
from domain.preferences import Preferences

PRESENCE_TRUSTED = timedelta(seconds=5)  # for so long after a message a connected phone may stay silent


@dataclass(frozen=True, slots=True)
class Recipient:
    """One installation of somebody whose log holds the message."""

    has_read: bool  # its cursor has passed the message
    is_present: bool  # a stream of it is open


class Heed(Enum):
    """Whether open streams count."""

    PRESENCE = "presence"
    NOTHING = "nothing"  # they had their time


class Means(Enum):
    """How an installation learns of a message."""

    PUSH = "push"
    STREAM = "stream"
    SYNC = "sync"  # alone: it has done so, or pushes are not wanted


def means(recipient: Recipient, preferences: Preferences, at: datetime, heed: Heed) -> Means:
    """Decide how an installation is told."""
    if unneeded(recipient, preferences, at):
        return Means.SYNC
    if recipient.is_present and heed is Heed.PRESENCE and RULES[Kind.MESSAGE].yields_to_presence:
        return Means.STREAM
    return Means.PUSH


def unneeded(recipient: Recipient, preferences: Preferences, at: datetime) -> str | None:
    """Say why an installation needs no push; None when it may."""
    return "synced" if recipient.has_read else unwanted(Kind.MESSAGE, preferences, at)
