"""The senders of all apps, by provider and app."""

import asyncio
from collections.abc import Mapping

from domain.push import Provider
from push.sender import Misconfigured, Sender

Senders = Mapping[tuple[Provider, str | None], Sender]


class Apps:
    """Finds the sender of an app; the one without a name is the default app's."""

    def __init__(self, senders: Senders) -> None:
        self._senders = senders

    @property
    def providers(self) -> frozenset[Provider]:
        """The providers that any app has credentials for."""
        return frozenset(provider for provider, _ in self._senders)

    def sender(self, provider: Provider, app_id: str | None) -> Sender:
        """Find the sender; raises Misconfigured for an app without credentials for this provider."""
        sender = self._senders.get((provider, app_id)) or self._senders.get((provider, None))
        if sender is None:
            raise Misconfigured("app_not_configured")
        return sender

    async def close(self) -> None:
        """Let calls in flight finish, then close all connections."""
        await asyncio.gather(*(sender.close() for sender in self._senders.values()))
