"""What a provider's refusal means for us; each provider's table says which refusal is which."""

import re
from collections import Counter
from datetime import UTC, datetime
from enum import Enum, auto

import structlog

from push.sender import Delivery, ThrottleExtent
from telemetry import metrics

log = structlog.get_logger()

NOT_THE_PROVIDER = "answered_by_another"  # a 200 without what the provider says with it: a sign-in page, for one
MAX_REASONS = 100  # told apart by the counter; a provider that makes reasons up cannot fill the memory


class Verdict(Enum):
    """One reaction each."""

    DEAD_TOKEN = auto()
    SUSPECT_TOKEN = auto()  # dead, or our environment is wrong
    MISMATCHED_TOKEN = auto()  # another topic's or project's, or our topic or project is wrong
    OUR_BUG = auto()  # rejected, and somebody has to look
    MISCONFIGURED = auto()
    TOKEN_MISCONFIGURED = auto()  # for this one token something is missing on our side
    STALE_CREDENTIAL = auto()  # renew it, unless it is young: then misconfigured
    TOKEN_THROTTLED = auto()  # this token
    ROUTE_THROTTLED = auto()  # all of the route is throttled, and the answer says so
    THROTTLED_UNNAMED = auto()  # the answer does not say whom it concerns
    RECONNECT = auto()  # refused because of the connection it came on
    TRANSIENT = auto()


# Refusals that no table knows, by provider, status and reason, since the process began; any is worth a look.
unknown_refusals: Counter[tuple[str, int, str]] = Counter()
last_seen: dict[tuple[str, int, str], datetime] = {}

EXTENTS = {
    Verdict.TOKEN_THROTTLED: ThrottleExtent.TOKEN,
    Verdict.ROUTE_THROTTLED: ThrottleExtent.ROUTE,
    Verdict.THROTTLED_UNNAMED: ThrottleExtent.UNNAMED,
}


def delivery(status: int) -> Delivery:
    """Tell what became of a push that was answered with trouble of the provider's own."""
    return Delivery.DECLINED if status == 503 else Delivery.UNKNOWN


def code(reason: object, status: int) -> str:
    """Make a short stable code of a provider's reason; content can never pass for one."""
    if isinstance(reason, str) and re.fullmatch(r"[A-Za-z_]{1,64}", reason):
        return reason
    return f"http_{status}"


def by_status(status: int) -> Verdict:
    """Judge a refusal of either provider by its status alone; redirects and sign-in are a gateway's in between."""
    if status >= 500 or status == 408:
        return Verdict.TRANSIENT
    return Verdict.MISCONFIGURED if status < 400 or status in {401, 407} else Verdict.OUR_BUG


def note_unknown(provider: str, status: int, reason: str) -> None:
    """Tell and count a refusal that the provider's table does not know."""
    log.error("unknown provider reason", provider=provider, status=status, reason=reason)
    key = (provider, status, reason)
    if key not in unknown_refusals and len(unknown_refusals) >= MAX_REASONS:
        key = (provider, 0, "others")
    unknown_refusals[key] += 1
    last_seen[key] = datetime.now(UTC)
    metrics.unknown_refusals.labels(*key).inc()
