"""Phones: one per app installation, with a token, a screen, a log, and pushes that wait while it is offline."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from simulator.http.exchange import SimulatedEnvironment, SimulatedProvider
from simulator.wire import WireRequest

_MAX_LINES = 500


@dataclass(frozen=True, slots=True)
class Notification:
    """A push as the phone reads it, from either provider."""

    title: str | None
    body: str | None
    data: dict[str, Any]
    collapse_key: str | None
    identity: str | bytes  # the same notification received twice has the same one
    is_visible: bool
    has_sound: bool = True  # the phone rings when it shows it
    level: str = "active"  # passive: the screen stays dark; an iPhone's interruption level
    channel: str | None = None  # Android's
    sound: str | None = None  # by name, as the push has it; from Android 8 on the channel's counts
    badge: int | None = None  # the number on the app's icon


@dataclass(frozen=True, slots=True)
class ScreenLine:
    """One line on the lock screen."""

    notification: Notification
    shown_timestamp: float
    times_received: int

    @property
    def title(self) -> str | None:
        """The bold line."""
        return self.notification.title

    @property
    def body(self) -> str | None:
        """The text under it."""
        return self.notification.body

    @property
    def data(self) -> dict[str, Any]:
        """What the app gets."""
        return self.notification.data

    @property
    def collapse_key(self) -> str | None:
        """apns-collapse-id or android.notification.tag."""
        return self.notification.collapse_key


class Screen:
    """The lines of one phone, newest first when iterated."""

    def __init__(self) -> None:
        self._lines: dict[str | int, ScreenLine] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def lines(self) -> list[ScreenLine]:
        """Newest first."""
        return list(reversed(self._lines.values()))

    def remove(self, line: ScreenLine) -> None:
        """Take a line away."""
        self._lines = {key: each for key, each in self._lines.items() if each is not line}

    def show(self, notification: Notification, now: float) -> None:
        """Replace the line with the same key, or add one."""
        self._count += 1
        key: str | int = self._count if notification.collapse_key is None else notification.collapse_key
        replaced = self._lines.pop(key, None)
        is_repeated = replaced is not None and replaced.notification.identity == notification.identity
        times = replaced.times_received + 1 if replaced is not None and is_repeated else 1
        self._lines[key] = ScreenLine(notification, now, times)
        if len(self._lines) > _MAX_LINES:
            del self._lines[next(iter(self._lines))]


_MAX_LOG = 10_000

# https://firebase.google.com/docs/cloud-messaging/customize-messages/collapsible-message-types
_STORED_BY_GOOGLE = 100  # for a phone that is offline; at one more all are discarded


class PhoneState(StrEnum):
    """Whether the app is there, and reachable."""

    INSTALLED = "installed"
    OFFLINE = "offline"
    UNINSTALLED = "uninstalled"


class PhonePermission(StrEnum):
    """Whether the system lets the app show notifications. The provider accepts a push in any case."""

    UNDETERMINED = "undetermined"  # the person has not been asked: nothing is shown
    GRANTED = "granted"
    PROVISIONAL = "provisional"  # iOS only: listed, without a sound or light
    DENIED = "denied"


class CannotHappen(Exception):
    """A request for something that no phone in this state does."""


class Arrival(StrEnum):
    """What became of an accepted push."""

    SHOWN = "shown"
    SILENT = "silent"  # nothing to show: data for the app only
    WAITING = "waiting"
    DROPPED = "dropped"  # by the provider or the phone; the receipt says why


@dataclass(slots=True, eq=False)
class Receipt:
    """One accepted push in a phone's log."""

    request: WireRequest
    notification: Notification
    expires_timestamp: float | None  # None: kept for weeks
    fate: Arrival = Arrival.WAITING
    reason: str | None = None
    sounded_timestamp: float | None = None  # when the phone rang for it


class Phone:
    """One app installation."""

    def __init__(self, token: str, provider: SimulatedProvider, environment: SimulatedEnvironment, name: str) -> None:
        self.token = token
        self.provider = provider
        self.environment = environment
        self.name = name
        self.app: str | None = None  # its topic or project; None until the first push to it
        self.locale: str | None = None
        self.state = PhoneState.INSTALLED
        self.permission = PhonePermission.GRANTED
        self.uninstalled_timestamp: float | None = None
        self.log: list[Receipt] = []
        self.accepted_count = 0
        self._screen = Screen()
        self._waiting: list[Receipt] = []

    @property
    def screen(self) -> list[ScreenLine]:
        """Its lines, newest first."""
        return self._screen.lines

    def receive(self, receipt: Receipt, now: float) -> None:
        """Receive an accepted push: show it, keep it, or drop it."""
        self.accepted_count += 1
        self.log.append(receipt)
        if len(self.log) > _MAX_LOG:
            del self.log[0]
        if self.state is PhoneState.INSTALLED:
            self._show(receipt, now)
        elif receipt.expires_timestamp is not None and receipt.expires_timestamp <= now:
            _drop(receipt, "offline")
        else:
            if self.provider is SimulatedProvider.APNS:  # Apple keeps one notification per app
                self._forget_waiting("superseded_while_offline")
            self._waiting.append(receipt)
            if len(self._waiting) > _STORED_BY_GOOGLE:
                self._forget_waiting("too_many_stored")

    def become(self, state: PhoneState, now: float) -> None:
        """Change the state; coming online delivers the waiting pushes, uninstalling drops them."""
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

    def permit(self, permission: PhonePermission) -> None:
        """Grant or deny the permission; without it the screen is cleared.

        Raises CannotHappen for what Android does not know.
        """
        if permission is PhonePermission.PROVISIONAL and self.provider is not SimulatedProvider.APNS:
            raise CannotHappen("Android knows no provisional permission.")
        self.permission = permission
        if not self._may_show:
            self._screen = Screen()

    def tap(self, task_id: str | None = None) -> ScreenLine:
        """Tap a line, by default the newest: it leaves the screen, and the app opens.

        Raises CannotHappen where it is not on the screen.
        """
        lines = [line for line in self.screen if task_id is None or line.data.get("task_id") == task_id]
        if not lines:
            raise CannotHappen("There is no such line on the screen." if task_id else "The screen is empty.")
        self._screen.remove(lines[0])
        return lines[0]

    @property
    def _may_show(self) -> bool:
        return self.permission in {PhonePermission.GRANTED, PhonePermission.PROVISIONAL}

    def _forget_waiting(self, reason: str) -> None:
        for receipt in self._waiting:
            _drop(receipt, reason)
        self._waiting.clear()

    def _show(self, receipt: Receipt, now: float) -> None:
        expires = receipt.expires_timestamp
        if expires is not None and 0 < expires <= now:
            _drop(receipt, "expired")
        elif not receipt.notification.is_visible:
            receipt.fate = Arrival.SILENT
        elif not self._may_show:
            _drop(receipt, f"permission_{self.permission}")
        else:
            if self.permission is PhonePermission.PROVISIONAL:
                receipt.notification = replace(receipt.notification, has_sound=False, level="passive")
            receipt.fate = Arrival.SHOWN
            self._screen.show(receipt.notification, now)
            if receipt.notification.has_sound:
                receipt.sounded_timestamp = now


def _drop(receipt: Receipt, reason: str) -> None:
    receipt.fate = Arrival.DROPPED
    receipt.reason = reason


@dataclass(frozen=True, slots=True)
class FormerToken:
    """A token that its phone has replaced."""

    phone: Phone
    dies_timestamp: float  # from then on its provider calls it unregistered


class Phones:
    """Every phone, by token. A token not seen before is an installed phone."""

    def __init__(self) -> None:
        self._phones: dict[str, Phone] = {}
        self._former: dict[str, FormerToken] = {}
        self._arrivals: dict[str, list[asyncio.Event]] = {}
        self.version = 0  # grows with every change; watchers compare it

    def __iter__(self) -> Iterator[Phone]:
        return iter(list(self._phones.values()))

    def __len__(self) -> int:
        return len(self._phones)

    def get(self, token: str) -> Phone | None:
        """Find the phone that has or had this token; None for an unknown token."""
        former = self._former.get(token)
        return self._phones.get(token) if former is None else former.phone

    def dead_since(self, token: str, now: float) -> float | None:
        """Give when a token became unregistered: its app was removed, or got another token. None: it is valid."""
        former, phone = self._former.get(token), self.get(token)
        if former is not None and former.dies_timestamp <= now:
            return former.dies_timestamp
        is_removed = phone is not None and phone.state is PhoneState.UNINSTALLED
        return (phone.uninstalled_timestamp or now) if phone is not None and is_removed else None

    def rotate(self, phone: Phone, lives_on: float) -> FormerToken:
        """Give a phone a new token; the old one stays valid for `lives_on` seconds.

        Raises CannotHappen for a phone that cannot fetch one.
        """
        if phone.state is not PhoneState.INSTALLED:
            raise CannotHappen(f"A phone that is {phone.state} fetches no token.")
        former = self._former[phone.token] = FormerToken(phone, time.time() + lives_on)
        del self._phones[phone.token]
        is_apple = phone.provider is SimulatedProvider.APNS
        phone.token = secrets.token_hex(32) if is_apple else f"{secrets.token_urlsafe(16)}:{secrets.token_urlsafe(105)}"
        self._phones[phone.token] = phone
        self.version += 1
        return former

    def seen(self, token: str, provider: SimulatedProvider, environment: SimulatedEnvironment) -> Phone:
        """Find the phone with this token; a new one is installed."""
        phone = self.get(token)
        if phone is None:
            name = f"{'iPhone' if provider is SimulatedProvider.APNS else 'Android'} {len(self._phones) + 1}"
            phone = self._phones[token] = Phone(token, provider, environment, name)
            self.version += 1
        return phone

    def declare(self, token: str, provider: SimulatedProvider, environment: SimulatedEnvironment) -> Phone:
        """Find the phone with this token; create it if it is new, or was another provider's or environment's."""
        known_token = token.lower() if provider is SimulatedProvider.APNS else token
        known = self._phones.get(known_token)
        if known is not None and (known.provider, known.environment) != (provider, environment):
            del self._phones[known_token]
        self._former.pop(known_token, None)
        return self.seen(known_token, provider, environment)

    def change(self, phone: Phone, state: PhoneState) -> None:
        """Go offline, come online, uninstall."""
        phone.become(state, time.time())
        self.version += 1

    def permit(self, phone: Phone, permission: PhonePermission) -> None:
        """Let the app show notifications, or not; raises CannotHappen."""
        phone.permit(permission)
        self.version += 1

    def tap(self, phone: Phone, task_id: str | None) -> ScreenLine:
        """Tap a line of a phone's screen; raises CannotHappen."""
        line = phone.tap(task_id)
        self.version += 1
        return line

    def deliver(self, phone: Phone, receipt: Receipt, now: float) -> None:
        """Deliver an accepted push to its phone."""
        phone.receive(receipt, now)
        self.version += 1
        for token in {phone.token, receipt.request.token}:
            for arrival in self._arrivals.get(token, ()):
                arrival.set()

    def clear(self) -> None:
        """Forget every phone."""
        self._phones.clear()
        self._former.clear()
        self.version += 1

    async def received(self, token: str, count: int = 1, within: float = 20.0) -> list[Receipt]:
        """Wait until `count` pushes to `token` were accepted; TimeoutError after `within` seconds."""
        arrival = asyncio.Event()
        self._arrivals.setdefault(token, []).append(arrival)
        try:
            async with asyncio.timeout(within):
                while (phone := self.get(token)) is None or phone.accepted_count < count:
                    arrival.clear()
                    await arrival.wait()
                return list(phone.log)
        finally:
            self._arrivals[token].remove(arrival)
            if not self._arrivals[token]:
                del self._arrivals[token]
