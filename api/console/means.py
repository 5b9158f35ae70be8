"""What the console holds beside the API: the way to Temporal, and the count of attempts to sign in."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from temporalio.client import Client

from domain.naming import workflow_page
from domain.problems import LimitReached

_MOST_SIGN_INS = RateLimitItemPerMinute(20)  # from one address, whether they succeed or not


class SignIns:
    """Counts attempts to sign in, in this process. No code can be guessed; this keeps the guessing cheap."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def check(self, address: str) -> None:
        """Count an attempt; raises LimitReached for one too many."""
        if not self._limiter.hit(_MOST_SIGN_INS, address):
            raise LimitReached("Too many attempts to sign in. Try again in a minute.", timedelta(minutes=1))


@dataclass(frozen=True, slots=True)
class ConsoleMeans:
    """Held while the process runs; set by the composition root."""

    temporal: Client
    temporal_ui_url: str | None
    sign_ins: SignIns = field(default_factory=SignIns)

    def workflow_page(self, workflow_id: str) -> str | None:
        """Name a workflow's page in Temporal's Web UI, where it is known."""
        if self.temporal_ui_url is None:
            return None
        return workflow_page(self.temporal_ui_url, self.temporal.namespace, workflow_id)


def _means(request: Request) -> ConsoleMeans:
    means: ConsoleMeans = request.app.state.console
    return means


Means = Annotated[ConsoleMeans, Depends(_means)]
