"""Credentials that change while the worker runs: swapped whole, or left as they are."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from domain.push import Environment, Provider
from push.apns.sender import ApnsAccount
from push.fcm.sender import FcmAccount
from push.registry import Account, Accounts, Key, Rotation, UnusableFile
from push.sender import Accepted, Unavailable
from simulator import Simulator
from tests.busy import soon
from tests.credential_files import SERVICE_ACCOUNTS, spoil
from tests.push.conftest import APNS_TOKEN, apns_account, fcm_account, make_push, outcome

APNS: Key = (Provider.APNS, "one")
FCM: Key = (Provider.FCM, "one")
SOON = timedelta(seconds=0.01)


class Settings:
    """What the settings say at the moment."""

    def __init__(self, directory: Path, sim: Simulator) -> None:
        self.key_file, self.service_account = directory / "key.p8", directory / "account.json"
        apns, fcm = apns_account(sim), fcm_account(sim)
        self.key_file.write_text(apns.key_file.read_text())
        self.service_account.write_text(fcm.service_account_file.read_text())
        self.apns: ApnsAccount = replace(apns, key_file=self.key_file)
        self.fcm: FcmAccount = replace(fcm, service_account_file=self.service_account)
        self.accounts = Accounts({APNS: self.apns, FCM: self.fcm}, frozenset({"one"}))
        self.trouble: str | None = None

    def read(self) -> Accounts:
        """Tell them, or raise."""
        if self.trouble:
            raise ValueError(self.trouble)
        return self.accounts


@pytest.fixture
def settings(tmp_path: Path, sim: Simulator) -> Settings:
    """Both providers for the app `one`."""
    return Settings(tmp_path, sim)


@pytest.fixture
async def rotation(settings: Settings) -> AsyncIterator[Rotation]:
    """Senders made from them."""
    rotation = Rotation(settings.read, every=SOON, linger=SOON)
    yield rotation
    await rotation.close()


def new_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


async def test_nothing_new_changes_nothing(rotation: Rotation, settings: Settings) -> None:
    before = [rotation.apps.sender(*key) for key in (APNS, FCM)]
    settings.key_file.touch()
    settings.key_file.write_text(settings.key_file.read_text())

    await rotation.look()

    assert [rotation.apps.sender(*key) for key in (APNS, FCM)] == before


def _new_file(settings: Settings) -> None:
    settings.key_file.write_text(new_key())


def _new_topic(settings: Settings) -> None:
    settings.accounts = Accounts({APNS: replace(settings.apns, topic="next"), FCM: settings.fcm}, frozenset({"one"}))


def _new_authority(settings: Settings) -> None:
    authority = settings.key_file.parent / "ca.pem"
    authority.write_bytes(settings.apns.ca_file.read_bytes() if settings.apns.ca_file else b"")
    apns = replace(settings.apns, ca_file=authority)
    settings.accounts = Accounts({APNS: apns, FCM: settings.fcm}, frozenset({"one"}))


@pytest.mark.parametrize("change", [_new_file, _new_topic, _new_authority])
async def test_a_change_makes_a_new_sender_for_its_own_route_only(
    rotation: Rotation, settings: Settings, change: Callable[[Settings], None]
) -> None:
    apple, google = rotation.apps.sender(*APNS), rotation.apps.sender(*FCM)

    change(settings)
    await rotation.look()

    assert rotation.apps.sender(*APNS) is not apple
    assert rotation.apps.sender(*FCM) is google


async def test_a_changed_service_account_makes_a_new_sender(rotation: Rotation, settings: Settings) -> None:
    before = rotation.apps.sender(*FCM)

    account = json.loads(settings.service_account.read_text())
    settings.service_account.write_text(json.dumps(account | {"private_key_id": "next"}))
    await rotation.look()

    assert rotation.apps.sender(*FCM) is not before


async def test_the_old_sender_finishes_its_calls_and_is_closed(
    sim: Simulator, rotation: Rotation, settings: Settings
) -> None:
    before = rotation.apps.sender(*APNS)
    assert before is not None
    await outcome(before, make_push(APNS_TOKEN))
    sim.faults.add(fault="slow", provider="apns", delay=0.3)
    in_flight = asyncio.create_task(outcome(before, make_push(APNS_TOKEN)))
    async with soon(5):
        while len(sim.requests) < 2:
            await asyncio.sleep(0.01)

    settings.key_file.write_text(new_key())
    await rotation.look()

    assert isinstance(await in_flight, Accepted)
    await asyncio.gather(*rotation._retiring)
    late = await outcome(before, make_push(APNS_TOKEN))
    assert isinstance(late, Unavailable)
    assert late.reason == "closing"


@pytest.mark.parametrize("content", ["", "-----BEGIN PRIVATE KEY-----\nhalf", "\x00\xff"])
async def test_a_broken_key_leaves_the_old_one_in_use_and_is_reported_once(
    rotation: Rotation, settings: Settings, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    before, whole = rotation.apps.sender(*APNS), settings.key_file.read_text()

    settings.key_file.write_text(content)
    for _ in range(3):
        await rotation.look()
    told = capsys.readouterr().out.count("credentials not renewed")
    settings.key_file.write_text(content + "x")
    await rotation.look()
    told_again = capsys.readouterr().out.count("credentials not renewed")
    kept = rotation.apps.sender(*APNS)
    settings.key_file.write_text(whole)
    await rotation.look()

    assert (told, told_again) == (1, 1)
    assert kept is rotation.apps.sender(*APNS) is before


@pytest.mark.parametrize("content", SERVICE_ACCOUNTS, ids=lambda content: repr(content)[:40])
async def test_a_broken_service_account_holds_up_no_other_file(
    rotation: Rotation, settings: Settings, capsys: pytest.CaptureFixture[str], content: object
) -> None:
    apple, google = rotation.apps.sender(*APNS), rotation.apps.sender(*FCM)

    spoil(settings.service_account, content)
    settings.key_file.write_text(new_key())
    for _ in range(2):
        await rotation.look()

    assert rotation.apps.sender(*FCM) is google
    assert rotation.apps.sender(*APNS) is not apple
    assert capsys.readouterr().out.count(SERVICE_ACCOUNTS[content]) == 1


async def test_a_key_of_another_curve_is_not_taken(
    rotation: Rotation, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rotation.apps.sender(*APNS)
    key = ec.generate_private_key(ec.SECP384R1())

    settings.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    await rotation.look()

    assert rotation.apps.sender(*APNS) is before
    assert f"{settings.key_file} cannot be used: its key is not of the curve P-256" in capsys.readouterr().out


async def test_a_file_that_is_gone_for_a_moment_changes_nothing(rotation: Rotation, settings: Settings) -> None:
    before, whole = rotation.apps.sender(*FCM), settings.service_account.read_text()

    settings.service_account.unlink()
    await rotation.look()
    settings.service_account.write_text(whole)
    await rotation.look()

    assert rotation.apps.sender(*FCM) is before


async def test_settings_that_cannot_be_read_change_nothing_and_are_reported_once(
    rotation: Rotation, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rotation.apps.sender(*APNS)

    settings.trouble = "APPS_FILE is not TOML."
    for _ in range(3):
        await rotation.look()

    assert rotation.apps.sender(*APNS) is before
    assert capsys.readouterr().out.count("APPS_FILE is not TOML.") == 1


async def test_an_app_that_is_gone_is_not_sent_to(rotation: Rotation, settings: Settings) -> None:
    settings.accounts = Accounts({FCM: settings.fcm}, frozenset({"one"}))

    await rotation.look()

    assert rotation.apps.sender(*APNS) is None


async def test_a_new_app_with_a_broken_key_waits_and_disturbs_nobody(
    rotation: Rotation, settings: Settings, tmp_path: Path
) -> None:
    before, broken = rotation.apps.sender(*APNS), tmp_path / "broken.p8"
    broken.write_text("broken")
    two: Key = (Provider.APNS, "two")
    found: dict[Key, Account] = {APNS: settings.apns, FCM: settings.fcm, two: replace(settings.apns, key_file=broken)}
    settings.accounts = Accounts(found, frozenset({"one", "two"}))

    await rotation.look()

    assert rotation.apps.sender(*APNS) is before
    assert rotation.apps.sender(*two) is None
    broken.write_text(new_key())
    await rotation.look()
    assert rotation.apps.sender(*two)


async def test_the_files_are_read_in_a_thread(settings: Settings) -> None:
    readers: list[threading.Thread] = []

    def read() -> Accounts:
        readers.append(threading.current_thread())
        return settings.accounts

    rotation = Rotation(read)
    await rotation.look()
    await rotation.close()

    assert [reader is threading.main_thread() for reader in readers] == [True, False]


async def test_at_the_start_a_broken_key_is_refused(settings: Settings) -> None:
    settings.key_file.write_text("broken")

    with pytest.raises(UnusableFile, match=r"key\.p8 cannot be used: it holds no private key in PEM form") as raised:
        Rotation(settings.read)

    assert raised.value.key == APNS


async def test_it_follows_by_itself(rotation: Rotation, settings: Settings) -> None:
    before = rotation.apps.sender(*APNS)
    following = asyncio.create_task(rotation.follow())

    settings.key_file.write_text(new_key())
    async with soon(5):
        while rotation.apps.sender(*APNS) is before:
            await asyncio.sleep(0.01)

    following.cancel()


async def test_without_a_file_of_apps_every_app_is_the_default_one(sim: Simulator) -> None:
    rotation = Rotation(lambda: Accounts({(Provider.APNS, None): apns_account(sim)}, None))

    assert rotation.apps.sender(Provider.APNS, "any") is rotation.apps.sender(Provider.APNS, None)
    assert rotation.apps.providers == {Provider.APNS}
    await rotation.close()


async def test_with_a_file_of_apps_no_app_is_sent_to_with_anothers_credentials(
    sim: Simulator, rotation: Rotation
) -> None:
    for app_id in ("two", None):
        assert rotation.apps.sender(Provider.APNS, app_id) is None
    sender = rotation.apps.sender(*APNS)
    assert sender is not None
    async with sender.lease(Environment.PRODUCTION):
        pass
    assert rotation.apps.providers == set(Provider)
    assert len(sim.requests) == 0
