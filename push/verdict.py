"""What a provider's refusal means for us; each provider's table says which refusal is which."""

import re
from enum import Enum, auto

from push.sender import Extent


class Verdict(Enum):
    """One reaction each."""

    DEAD_TOKEN = auto()
    DOUBTFUL_TOKEN = auto()  # dead, or our environment is wrong
    FOREIGN_TOKEN = auto()  # another topic's or project's, or our topic or project is wrong
    OUR_BUG = auto()  # rejected, and somebody has to look
    MISCONFIGURED = auto()
    STALE_CREDENTIAL = auto()  # renew it, unless it is young: then misconfigured
    THROTTLED = auto()  # this token
    OVERDONE = auto()  # all of the route is throttled
    RECONNECT = auto()  # refused because of the connection it came on
    TRANSIENT = auto()


EXTENTS = {Verdict.THROTTLED: Extent.TOKEN, Verdict.OVERDONE: Extent.ROUTE}


def code(reason: object, status: int) -> str:
    """Make a short stable code of a provider's reason; content can never pass for one."""
    if isinstance(reason, str) and re.fullmatch(r"[A-Za-z_]{1,64}", reason):
        return reason
    return f"http_{status}"
