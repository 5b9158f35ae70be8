"""How an installation stands to a user."""

from enum import StrEnum

from domain.problems import Conflict, NotFound


class Standing(StrEnum):
    """What its device tokens say about an installation."""

    ACTIVE = "active"
    INVALIDATED = "invalidated"  # its provider calls the token dead
    INACTIVE = "inactive"  # signed out, or somebody else signed in
    FOREIGN = "foreign"
    UNKNOWN = "unknown"  # never registered: a phone that may show no notifications may sync all the same


def check_may_sync(standing: Standing) -> None:
    """Check that the user's log may be read for this installation; raises NotFound, Conflict."""
    match standing:
        case Standing.FOREIGN:
            raise NotFound("installation")
        case Standing.INACTIVE:
            raise Conflict("installation-inactive", "Nobody is signed in there any more; register its token first.")
        case Standing.ACTIVE | Standing.INVALIDATED | Standing.UNKNOWN:
            return
