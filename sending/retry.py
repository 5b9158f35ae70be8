"""How long a push waits before its next attempt: docs/decisions/0006-retry-delays.md."""

from collections.abc import Mapping
from datetime import timedelta

from domain.back_off import BackOff, in_time
from push.sender import (
    AwaitsCredentials,
    ChecksAgain,
    ConnectionLost,
    Delivery,
    Misconfigured,
    NotConfigured,
    Paused,
    ProbesNext,
    ProviderTrouble,
    Reserved,
    StaleCredential,
    Throttled,
    TokenMisconfigured,
    Unavailable,
)

BackOffs = Mapping[type[ProviderTrouble] | Delivery, BackOff]

BACK_OFFS: BackOffs = {
    Delivery.NOT_PROCESSED: BackOff(timedelta(milliseconds=200), timedelta(seconds=60)),
    ConnectionLost: BackOff(timedelta(milliseconds=200), timedelta(seconds=60)),
    Unavailable: BackOff(timedelta(seconds=2), timedelta(seconds=60)),
    StaleCredential: BackOff(timedelta(seconds=1), timedelta(seconds=60)),
    Throttled: BackOff(timedelta(seconds=10), timedelta(minutes=5)),
    Misconfigured: BackOff(timedelta(seconds=2), timedelta(seconds=30)),
    NotConfigured: BackOff(timedelta(seconds=5), timedelta(seconds=5)),
    TokenMisconfigured: BackOff(timedelta(seconds=2), timedelta(minutes=5)),
    Paused: BackOff(timedelta(seconds=2), timedelta(seconds=10)),
    ChecksAgain: BackOff(timedelta(milliseconds=200), timedelta(milliseconds=200)),
    AwaitsCredentials: BackOff(timedelta(milliseconds=200), timedelta(milliseconds=200)),
    ProbesNext: BackOff(timedelta(milliseconds=200), timedelta(milliseconds=200)),
    Reserved: BackOff(timedelta(milliseconds=200), timedelta(milliseconds=200)),
}

MAX_SHORTENED = timedelta(minutes=1)  # rests up to this, such as Google's advice, may be shortened; longer ones not


def before_it_expires(trouble: ProviderTrouble, wanted: timedelta, left: timedelta) -> timedelta | None:
    """Fit the wait after a failed call in before the push expires; None where no time is left for another try."""
    floor = trouble.retry_after or timedelta(0)
    if floor <= MAX_SHORTENED:
        return in_time(wanted, left)
    fitting = in_time(wanted, left) if floor < left else None
    return fitting and max(fitting, floor)


def is_about_credentials(trouble: ProviderTrouble) -> bool:
    """Whether a call has shown that our credentials are refused, so that others may help."""
    return isinstance(trouble, Misconfigured) and not isinstance(trouble, NotConfigured | TokenMisconfigured)


def delay(back_offs: BackOffs, trouble: ProviderTrouble, attempt: int, chance: float) -> timedelta:
    """Return how long to wait after attempt number `attempt` (from 1); `chance` is uniform in [0, 1)."""
    kind: type[ProviderTrouble] | Delivery = type(trouble)
    if isinstance(trouble, Unavailable) and not isinstance(trouble, StaleCredential):
        is_unprocessed = trouble.delivery in {Delivery.NOT_SENT, Delivery.NOT_PROCESSED}
        in_doubt = ConnectionLost if isinstance(trouble, ConnectionLost) else Unavailable
        kind = Delivery.NOT_PROCESSED if is_unprocessed else in_doubt
    return back_offs[kind].delay(attempt, chance, trouble.retry_after)
