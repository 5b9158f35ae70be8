"""A push to nobody: how a provider refuses it tells whether it would take others. Nothing is recorded of it."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from domain.kinds import Kind
from domain.push import Environment, Provider, Push
from push.sender import Answer, Sender

NOBODY = {Provider.APNS: "f" * 64, Provider.FCM: "fastbell-doctor/nobody"}  # tokens that no phone can have


async def probe(sender: Sender, provider: Provider, environment: Environment) -> Answer:
    """Make one provider call, which is not repeated; raises ProviderTrouble."""
    async with sender.slot(environment) as slot:
        return await slot.send(_push(provider))


def _push(provider: Provider) -> Push:
    return Push(
        task_id=uuid4(),
        attempt_id=uuid4(),
        kind=Kind.TEST,
        token=NOBODY[provider],
        title="Fastbell",
        body="Nobody reads this.",
        generic_title="Fastbell",
        generic_body="Nobody reads this.",
        url="fastbell://doctor",
        collapse_key=None,
        thread_id="doctor",
        expires_at=datetime.now(UTC) + timedelta(minutes=1),
        validate_only=True,
    )
