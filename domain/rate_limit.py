"""A rate limit as settings write it: `600/minute`."""

import re
from dataclasses import dataclass

_FORM = re.compile(r"\s*(\d+)\s*(?:/|\s+per\s+)\s*(?:(\d+)\s*)?(second|minute|hour|day|month|year)s?\s*", re.IGNORECASE)
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "month": 2_592_000, "year": 31_104_000}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A number of requests in a number of seconds."""

    amount: int
    seconds: int = 60


def parse(text: str) -> RateLimit:
    """Read `600/minute` or `10 per 5 minutes`; raises ValueError, also for zero."""
    match = _FORM.fullmatch(text)
    limit = match and RateLimit(int(match[1]), int(match[2] or 1) * _SECONDS[match[3].lower()])
    if not limit or not limit.amount or not limit.seconds:
        raise ValueError("not a rate")
    return limit
