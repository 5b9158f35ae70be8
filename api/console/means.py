"""What the console holds beside the API: the way to Temporal, and the count of attempts to sign in."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from temporalio.client import Client

from api.rates import Rate
from domain.naming import workflow_page
from domain.rate_limit import RateLimit

_MOST_SIGN_INS = RateLimit(20)  # from one address; no code can be guessed, this keeps the guessing cheap


@dataclass(frozen=True, slots=True)
class ConsoleMeans:
    """Held while the process runs; set by the composition root."""

    temporal: Client
    temporal_ui_url: str | None
    sign_ins: Rate = field(default_factory=lambda: Rate(_MOST_SIGN_INS))  # attempts, by address

    def workflow_page(self, workflow_id: str) -> str | None:
        """Name a workflow's page in Temporal's Web UI, where it is known."""
        if self.temporal_ui_url is None:
            return None
        return workflow_page(self.temporal_ui_url, self.temporal.namespace, workflow_id)


def _means(request: Request) -> ConsoleMeans:
    means: ConsoleMeans = request.app.state.console
    return means


Means = Annotated[ConsoleMeans, Depends(_means)]
