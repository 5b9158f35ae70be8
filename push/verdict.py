"""How we react to a provider's refusal; each provider's table says to which."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import assert_never

import structlog

from push.sender import (
    Answer,
    AnsweredUnavailable,
    Delivery,
    Misconfigured,
    MismatchedToken,
    Rejected,
    SuspectToken,
    Throttled,
    ThrottleExtent,
    TokenMisconfigured,
    Unregistered,
)
from telemetry import metrics

log = structlog.get_logger()

NOT_THE_PROVIDER = "answered_by_another"  # a 200 without the provider's marks, such as a proxy's sign-in page
MAX_REASONS = 100  # counted one by one; invented reasons cannot fill the memory
# Refusals that no table knows, by provider, status and reason, since the process began.
unknown_refusals: Counter[tuple[str, int, str]] = Counter()
last_seen: dict[tuple[str, int, str], datetime] = {}


class Verdict(Enum):
    """One reaction each."""

    DEAD_TOKEN = auto()
    SUSPECT_TOKEN = auto()  # dead, or our environment is wrong
    MISMATCHED_TOKEN = auto()  # another topic's or project's, or our topic or project is wrong
    OUR_BUG = auto()  # rejected; a developer has to look
    MISCONFIGURED = auto()
    TOKEN_MISCONFIGURED = auto()  # something is missing on our side for this token alone
    STALE_CREDENTIAL = auto()  # renew it; if it is young, misconfigured
    TOKEN_THROTTLED = auto()  # this token
    ROUTE_THROTTLED = auto()  # the whole route, as the answer says
    THROTTLED_UNNAMED = auto()  # the answer does not say which
    RECONNECT = auto()  # refused because of its connection
    TRANSIENT = auto()


EXTENTS = {
    Verdict.TOKEN_THROTTLED: ThrottleExtent.TOKEN,
    Verdict.ROUTE_THROTTLED: ThrottleExtent.ROUTE,
    Verdict.THROTTLED_UNNAMED: ThrottleExtent.UNNAMED,
}


def reaction(
    provider: str,
    verdict: Verdict,
    status: int,
    reason: str,
    *,
    since: datetime | None = None,
    retry_after: timedelta | None = None,
) -> Answer:
    """React to a refusal of either provider; raises ProviderTrouble. `since`: when the token died."""
    match verdict:
        case Verdict.DEAD_TOKEN:
            return Unregistered(reason, since)
        case Verdict.SUSPECT_TOKEN:
            return SuspectToken(reason)
        case Verdict.MISMATCHED_TOKEN:
            log.error("token of another topic or project", provider=provider, status=status, reason=reason)
            return MismatchedToken(reason)
        case Verdict.OUR_BUG:
            log.error("provider rejected our push", provider=provider, status=status, reason=reason)
            return Rejected(reason)
        case Verdict.MISCONFIGURED | Verdict.STALE_CREDENTIAL:
            log.error("provider misconfigured", provider=provider, status=status, reason=reason)
            raise Misconfigured(reason)
        case Verdict.TOKEN_MISCONFIGURED:
            raise TokenMisconfigured(reason)
        case (Verdict.TOKEN_THROTTLED | Verdict.ROUTE_THROTTLED | Verdict.THROTTLED_UNNAMED) as throttle:
            raise Throttled(reason, EXTENTS[throttle], retry_after=retry_after)
        case Verdict.TRANSIENT | Verdict.RECONNECT:
            raise AnsweredUnavailable(reason, delivery(status), retry_after=retry_after)
        case never:
            assert_never(never)


def delivery(status: int) -> Delivery:
    """Say what became of a push that the provider answered with a 5xx."""
    return Delivery.DECLINED if status == 503 else Delivery.UNKNOWN


def code(reason: object, status: int) -> str:
    """Make a short stable code of a provider's reason; content never passes."""
    if isinstance(reason, str) and re.fullmatch(r"[A-Za-z_]{1,64}", reason):
        return reason
    return f"http_{status}"


def by_status(status: int) -> Verdict:
    """Judge a refusal of either provider by its status alone; redirects and 407 come from a gateway in between."""
    if status >= 500 or status == 408:
        return Verdict.TRANSIENT
    return Verdict.MISCONFIGURED if status < 400 or status in {401, 407} else Verdict.OUR_BUG


def note_unknown(provider: str, status: int, reason: str) -> None:
    """Log and count a refusal that the provider's table does not know."""
    log.error("unknown provider reason", provider=provider, status=status, reason=reason)
    key = (provider, status, reason)
    if key not in unknown_refusals and len(unknown_refusals) >= MAX_REASONS:
        key = (provider, 0, "others")
    unknown_refusals[key] += 1
    last_seen[key] = datetime.now(UTC)
    metrics.unknown_refusals.labels(*key).inc()
