"""Phones: one per device token, with a screen, a log, and pushes that wait while it is offline."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from simulator.exchange import Environment, Provider
from simulator.screen import Line, Notification, Screen
from simulator.wire import WireRequest

_LOG_KEPT = 10_000


class PhoneState(StrEnum):
    """Whether the app is there, and reachable."""

    INSTALLED = "installed"
    OFFLINE = "offline"
    UNINSTALLED = "uninstalled"


class Fate(StrEnum):
    """What became of an accepted push."""

    SHOWN = "shown"
    SILENT = "silent"  # nothing to show: data for the app alone
    WAITING = "waiting"
    DROPPED = "dropped"


@dataclass(slots=True, eq=False)
class Receipt:
    """One accepted push in a phone's log."""

    request: WireRequest
    notification: Notification
    expires_timestamp: float | None  # None: kept for weeks
    fate: Fate = Fate.WAITING
    reason: str | None = None
    sounded_timestamp: float | None = None  # when the phone rang for it


class Phone:
    """One app installation."""

    def __init__(self, token: str, provider: Provider, environment: Environment, name: str) -> None:
        self.token = token
        self.provider = provider
        self.environment = environment
        self.name = name
        self.app: str | None = None  # its topic or project; None until the first push to it
        self.locale: str | None = None
        self.state = PhoneState.INSTALLED
        self.uninstalled_timestamp: float | None = None
        self.log: list[Receipt] = []
        self.accepted_count = 0
        self._screen = Screen()
        self._waiting: list[Receipt] = []

    @property
    def screen(self) -> list[Line]:
        """Its lines, newest first."""
        return self._screen.lines

    def receive(self, receipt: Receipt, now: float) -> None:
        """Take an accepted push: show it, keep it, or drop it."""
        self.accepted_count += 1
        self.log.append(receipt)
        if len(self.log) > _LOG_KEPT:
            del self.log[0]
        if self.state is PhoneState.INSTALLED:
            self._show(receipt, now)
        elif receipt.expires_timestamp is not None and receipt.expires_timestamp <= now:
            _drop(receipt, "offline")
        else:
            if self.provider is Provider.APNS:  # Apple keeps one notification per app
                for older in self._waiting:
                    _drop(older, "superseded_while_offline")
                self._waiting.clear()
            self._waiting.append(receipt)

    def become(self, state: PhoneState, now: float) -> None:
        """Change the state; coming online delivers what waited, uninstalling forgets it."""
        if state is PhoneState.UNINSTALLED and self.state is not PhoneState.UNINSTALLED:
            self.uninstalled_timestamp = now
        self.state = state
        if state is PhoneState.OFFLINE:
            return
        waiting, self._waiting = self._waiting, []
        for receipt in waiting:
            if state is PhoneState.INSTALLED:
                self._show(receipt, now)
            else:
                _drop(receipt, "uninstalled")
        if state is PhoneState.UNINSTALLED:
            self._screen = Screen()

    def _show(self, receipt: Receipt, now: float) -> None:
        expires = receipt.expires_timestamp
        if expires is not None and 0 < expires <= now:
            _drop(receipt, "expired")
        elif not receipt.notification.is_visible:
            receipt.fate = Fate.SILENT
        else:
            receipt.fate = Fate.SHOWN
            self._screen.show(receipt.notification, now)
            if receipt.notification.has_sound:
                receipt.sounded_timestamp = now


def _drop(receipt: Receipt, reason: str) -> None:
    receipt.fate = Fate.DROPPED
    receipt.reason = reason


class Phones:
    """Every phone, by token. A token not seen before is an installed phone."""

    def __init__(self) -> None:
        self._phones: dict[str, Phone] = {}
        self._arrivals: dict[str, list[asyncio.Event]] = {}
        self.version = 0  # grows with every change, for those who watch

    def __iter__(self) -> Iterator[Phone]:
        return iter(list(self._phones.values()))

    def __len__(self) -> int:
        return len(self._phones)

    def get(self, token: str) -> Phone | None:
        """Find the phone with this token, if it was ever seen or declared."""
        return self._phones.get(token)

    def seen(self, token: str, provider: Provider, environment: Environment) -> Phone:
        """Find the phone with this token; a new one is installed."""
        phone = self._phones.get(token)
        if phone is None:
            name = f"{'iPhone' if provider is Provider.APNS else 'Android'} {len(self._phones) + 1}"
            phone = self._phones[token] = Phone(token, provider, environment, name)
            self.version += 1
        return phone

    def declare(self, token: str, provider: Provider, environment: Environment) -> Phone:
        """Find the phone with this token; make it if it is new, or was another provider's or environment's."""
        known_token = token.lower() if provider is Provider.APNS else token
        known = self._phones.get(known_token)
        if known is not None and (known.provider, known.environment) != (provider, environment):
            del self._phones[known_token]
        return self.seen(known_token, provider, environment)

    def change(self, phone: Phone, state: PhoneState) -> None:
        """Go offline, come online, uninstall."""
        phone.become(state, time.time())
        self.version += 1

    def deliver(self, phone: Phone, receipt: Receipt, now: float) -> None:
        """Hand an accepted push to its phone."""
        phone.receive(receipt, now)
        self.version += 1
        for arrival in self._arrivals.get(phone.token, ()):
            arrival.set()

    def clear(self) -> None:
        """Forget every phone."""
        self._phones.clear()
        self.version += 1

    async def received(self, token: str, count: int, within: float) -> list[Receipt]:
        """Wait until `count` pushes to `token` were accepted; TimeoutError after `within` seconds."""
        arrival = asyncio.Event()
        self._arrivals.setdefault(token, []).append(arrival)
        try:
            async with asyncio.timeout(within):
                while (phone := self._phones.get(token)) is None or phone.accepted_count < count:
                    arrival.clear()
                    await arrival.wait()
                return list(phone.log)
        finally:
            self._arrivals[token].remove(arrival)
            if not self._arrivals[token]:
                del self._arrivals[token]
