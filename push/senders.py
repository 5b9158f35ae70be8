"""The senders of all apps, by provider and app."""

import asyncio
from collections.abc import Mapping

from domain.push import Environment, Provider, Route
from push.sender import NotConfigured, Sender

Key = tuple[Provider, str | None]  # the app without a name is the default one
Senders = Mapping[Key, Sender]


class Apps:
    """Finds the sender of an app; another one than before means that the app's credentials changed.

    `named` are the apps that have credentials of their own; None: there is the default app only, whatever a phone says.
    """

    def __init__(self, senders: Senders, named: frozenset[str] | None = None) -> None:
        self._senders = dict(senders)
        self._named = named

    @property
    def providers(self) -> frozenset[Provider]:
        """The providers to take work for: all where apps come and go, for then work of any may come."""
        return frozenset(provider for provider, _ in self._senders) if self._named is None else frozenset(Provider)

    @property
    def keys(self) -> frozenset[Key]:
        """The apps that have credentials, by provider."""
        return frozenset(self._senders)

    def route(self, provider: Provider, app_id: str | None, environment: Environment) -> Route:
        """Name the route to a phone: where no app has credentials of its own, whatever a phone says is the default."""
        return Route(provider, None if self._named is None else app_id, environment)

    def sender(self, provider: Provider, app_id: str | None) -> Sender:
        """Find the sender; raises NotConfigured for an app without credentials for this provider."""
        sender = self._senders.get((provider, None if self._named is None else app_id))
        if sender is None:
            raise NotConfigured("app_not_configured")
        return sender

    def replace(self, senders: Senders, named: frozenset[str] | None) -> list[Sender]:
        """Use these senders from now on; returns those that were dropped, which may still have calls in flight."""
        dropped = [sender for key, sender in self._senders.items() if senders.get(key) is not sender]
        self._senders, self._named = dict(senders), named
        return dropped

    async def close(self) -> None:
        """Let calls in flight finish, then close all connections."""
        await asyncio.gather(*(sender.close() for sender in self._senders.values()))
