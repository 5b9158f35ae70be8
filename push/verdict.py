"""What a provider's refusal means for us; each provider's table says which refusal is which."""

import re
from enum import Enum, auto


class Verdict(Enum):
    """One reaction each."""

    DEAD_TOKEN = auto()
    REJECTED = auto()  # this push, never its token
    OUR_BUG = auto()  # rejected, and somebody has to look
    MISCONFIGURED = auto()
    STALE_CREDENTIAL = auto()  # renew it, unless it is young: then misconfigured
    THROTTLED = auto()
    OVERDONE = auto()  # throttled, and somebody has to look
    RECONNECT = auto()  # refused because of the connection it came on
    TRANSIENT = auto()


def code(reason: object, status: int) -> str:
    """Make a short stable code of a provider's reason; content can never pass for one."""
    if isinstance(reason, str) and re.fullmatch(r"[A-Za-z_]{1,64}", reason):
        return reason
    return f"http_{status}"
