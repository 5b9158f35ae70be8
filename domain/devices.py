"""What is known of a phone: what an app reports when it registers."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from domain import preferences as time_zones
from domain.problems import Conflict, InvalidField, NotFound
from domain.push import Provider


class Permission(StrEnum):
    """Whether a phone's system lets the app show notifications, as of its last registration."""

    UNDETERMINED = "undetermined"
    GRANTED = "granted"
    PROVISIONAL = "provisional"
    DENIED = "denied"


SHOWS_NOTHING = frozenset({Permission.UNDETERMINED, Permission.DENIED})


@dataclass(frozen=True, slots=True)
class ReportedPermission:
    """What an app reported at its last registration; the person may have changed it since."""

    permission: Permission
    at: datetime


class InstallationStanding(StrEnum):
    """The state of an installation, by its device tokens."""

    ACTIVE = "active"
    INVALIDATED = "invalidated"  # its provider called the token dead
    INACTIVE = "inactive"  # signed out, or another user signed in
    FOREIGN = "foreign"
    UNKNOWN = "unknown"  # never registered; a phone without notifications may still sync


def check_may_sync(standing: InstallationStanding) -> None:
    """Check that the user's log may be read for this installation; raises NotFound, Conflict."""
    match standing:
        case InstallationStanding.FOREIGN:
            raise NotFound("installation")
        case InstallationStanding.INACTIVE:
            raise Conflict("installation-inactive", "This installation is signed out. Register its token first.")
        case InstallationStanding.ACTIVE | InstallationStanding.INVALIDATED | InstallationStanding.UNKNOWN:
            return


LONGEST_TOKEN = 4096  # characters
LONGEST_VERSION = 50  # characters


_TOKEN_FORMS = {
    Provider.APNS: (
        re.compile(r"(?:[0-9A-Fa-f]{2}){32,100}"),
        "An APNs token is hexadecimal, of even length, and has 64 to 200 digits.",
    ),
    Provider.FCM: (
        re.compile(r"[A-Za-z0-9_:.%-]{32,4096}"),
        "An FCM token has 32 to 4096 characters, all of them letters, digits or one of _ : . % -.",
    ),
}

_LEAST_VARIETY = 8  # different characters; 64 random hexadecimal digits never have fewer


def token(provider: Provider, value: str) -> str:
    """Check a token's form; raises InvalidField. APNs' digits are given in lower case."""
    form, detail = _TOKEN_FORMS[provider]
    if not form.fullmatch(value):
        raise InvalidField("token", detail)
    normalized = value.lower() if provider is Provider.APNS else value
    if len(set(normalized)) < _LEAST_VARIETY:
        raise InvalidField("token", f"A token has {_LEAST_VARIETY} different characters or more.")
    return normalized


def time_zone(value: object) -> str | None:
    """Give the IANA name of a time zone; None if it is none."""
    return time_zones.known(value) if isinstance(value, str) else None


def version(value: object) -> str | None:
    """Give a version that can be shown on one line; None if nothing is left of it."""
    if not isinstance(value, str):
        return None
    shown = "".join(each for each in value[: 4 * LONGEST_VERSION] if each.isprintable())
    return shown.strip()[:LONGEST_VERSION].strip() or None


def permission(value: object) -> Permission | None:
    """Give the permission; None if it is unknown."""
    return Permission(value) if isinstance(value, str) and value in set(Permission) else None
