"""The senders of all apps, by provider and app; renewed when the files of their credentials change."""

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import assert_never

import structlog

from domain.push import Environment, Provider, Route
from push.apns.sender import ApnsAccount, ApnsSender
from push.credential_files import UnusableCredential
from push.fcm.sender import FcmAccount, FcmSender
from push.sender import Sender

log = structlog.get_logger()

Key = tuple[Provider, str | None]  # None: the default app

Senders = Mapping[Key, Sender]
EVERY = timedelta(seconds=5)
LINGER = timedelta(seconds=30)  # for sends that hold a sender that was just replaced
Account = ApnsAccount | FcmAccount


class SenderRegistry:
    """Finds the sender of an app; a different one than before means that the app's credentials have changed.

    `named` are the apps with credentials of their own; None: all phones belong to the default app.
    """

    def __init__(self, senders: Senders, named: frozenset[str] | None = None) -> None:
        self._senders = dict(senders)
        self._named = named

    @property
    def providers(self) -> frozenset[Provider]:
        """The providers to take work for: all of them where apps can be added, since work of any may come then."""
        return frozenset(provider for provider, _ in self._senders) if self._named is None else frozenset(Provider)

    @property
    def keys(self) -> frozenset[Key]:
        """The apps that have credentials, by provider."""
        return frozenset(self._senders)

    def route(self, provider: Provider, app_id: str | None, environment: Environment) -> Route:
        """Name the route to a phone; without apps of their own, all phones belong to the default app."""
        return Route(provider, None if self._named is None else app_id, environment)

    def sender(self, provider: Provider, app_id: str | None) -> Sender | None:
        """Find the sender of an app; None where it has no credentials for this provider."""
        return self._senders.get((provider, None if self._named is None else app_id))

    def replace(self, senders: Senders, named: frozenset[str] | None) -> list[Sender]:
        """Use these senders from now on; returns the dropped ones, which may still have calls in flight."""
        dropped = [sender for key, sender in self._senders.items() if senders.get(key) is not sender]
        self._senders, self._named = dict(senders), named
        return dropped

    async def close(self) -> None:
        """Let calls in flight finish, then close all connections."""
        await asyncio.gather(*(sender.close() for sender in self._senders.values()))


@dataclass(frozen=True, slots=True)
class Accounts:
    """The account of each app, as the settings are at the moment."""

    of: Mapping[Key, Account]
    named: frozenset[str] | None  # apps with credentials of their own; None: only the default app
    unreadable: Mapping[Key, str] = field(default_factory=dict)  # apps whose settings cannot be used, and why


class UnusableFile(ValueError):
    """A file of credentials cannot be read, or has a wrong content."""

    def __init__(self, key: Key, why: str) -> None:
        super().__init__(why)
        self.key = key


@dataclass(frozen=True, slots=True)
class _Made:
    account: Account
    digest: bytes  # of the files' contents
    sender: Sender


class Rotation:
    """Holds the senders of all apps, and makes a new one where its account or the content of its files has changed.

    `read` returns the accounts; it raises ValueError where the settings cannot be used.
    """

    def __init__(self, read: Callable[[], Accounts], *, every: timedelta = EVERY, linger: timedelta = LINGER) -> None:
        """Make the first senders; raises ValueError."""
        self._read = read
        self._every = every.total_seconds()
        self._linger = linger.total_seconds()
        self._reported: dict[Key | None, object] = {}  # trouble that is logged already
        self._unreadable: set[tuple[str | None, str]] = set()  # the same, by app
        self._retiring: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._looking = asyncio.Lock()
        accounts, digests = self._seen()
        for why in accounts.unreadable.values():
            raise ValueError(why)
        self._made = {key: _made(key, account, digests[key]) for key, account in accounts.of.items()}
        self.apps = SenderRegistry(self._senders(), accounts.named)

    async def follow(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 -- else the next change would go unseen
                log.warning("checking the credentials failed", error=type(error).__name__)

    async def look(self) -> None:
        """Look for changes once. What cannot be used is logged once, and the present credentials stay in use."""
        async with self._looking:
            try:
                accounts, digests = await asyncio.to_thread(self._seen)
            except (ValueError, OSError) as error:
                self._report(None, str(error), str(error))
            else:
                self._reported.pop(None, None)
                self._use(accounts, digests)

    async def close(self) -> None:
        """Let calls in flight finish, then close all connections."""
        self._closing.set()
        await asyncio.gather(self.apps.close(), *self._retiring)

    def _seen(self) -> tuple[Accounts, dict[Key, bytes]]:
        """Read all files; called in a thread, since a disk may be slow."""
        accounts = self._read()
        return accounts, {key: _digest(account) for key, account in accounts.of.items()}

    def _use(self, accounts: Accounts, digests: Mapping[Key, bytes]) -> None:
        current = {key: self._current(key, account, digests[key]) for key, account in accounts.of.items()}
        current |= {key: self._made.get(key) for key in accounts.unreadable}
        unreadable = {(key[1], why) for key, why in accounts.unreadable.items()}
        for app_id, why in unreadable - self._unreadable:
            log.error("credentials not renewed", app_id=app_id, why=why)
        self._unreadable = unreadable
        self._made = {key: made for key, made in current.items() if made is not None}
        for dropped in self.apps.replace(self._senders(), accounts.named):
            task = asyncio.create_task(self._retire(dropped))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def _current(self, key: Key, account: Account, digest: bytes) -> _Made | None:
        """Return the sender of an account, renewed if the account has changed; None for a new app that cannot send."""
        kept = self._made.get(key)
        if self._reported.get(key) == (account, digest):
            return kept
        try:
            if kept is None or (kept.account, kept.digest) != (account, digest):
                kept = _made(key, account, digest)
                log.info("credentials renewed", provider=key[0].value, app_id=key[1])
            self._reported.pop(key, None)
        except UnusableFile as error:
            self._report(key, (account, digest), str(error))
        return kept

    def _report(self, key: Key | None, what: object, why: str) -> None:
        if self._reported.get(key) != what:
            self._reported[key] = what
            provider, app_id = (key[0].value, key[1]) if key else (None, None)
            log.error("credentials not renewed", provider=provider, app_id=app_id, why=why)

    async def _retire(self, sender: Sender) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), self._linger)
        await sender.close()

    def _senders(self) -> dict[Key, Sender]:
        return {key: made.sender for key, made in self._made.items()}


def sender_of(key: Key, account: Account) -> Sender:
    """Make the sender of an account; raises UnusableFile."""
    try:
        return _sender(account)
    except UnusableCredential as error:
        raise UnusableFile(key, f"{_file(account)} cannot be used: {error}") from None
    except ssl.SSLError:
        raise UnusableFile(key, f"{account.ca_file} cannot be used: it holds no certificates") from None
    except Exception as error:  # noqa: BLE001 -- one app's broken file must not stop the others
        raise UnusableFile(key, f"{_file(account)} cannot be used: {type(error).__name__}") from None


def _made(key: Key, account: Account, digest: bytes) -> _Made:
    """Make a sender; the digest was taken before it read the files, so a change in between is seen next time."""
    return _Made(account, digest, sender_of(key, account))


def _sender(account: Account) -> Sender:
    match account:
        case ApnsAccount():
            return ApnsSender(account)
        case FcmAccount():
            return FcmSender(account)
        case _:
            assert_never(account)


def _digest(account: Account) -> bytes:
    """Digest an account's files; empty where one cannot be read, which fails again when the sender is made."""
    files = [_file(account)] + ([account.ca_file] if account.ca_file else [])
    try:
        return b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
    except OSError:
        return b""


def _file(account: Account) -> Path:
    match account:
        case ApnsAccount():
            return account.key_file
        case FcmAccount():
            return account.service_account_file
        case _:
            assert_never(account)
