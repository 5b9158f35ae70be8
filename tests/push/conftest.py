"""A scripted server and a pool of connections to it; pushes to send."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from domain.kinds import Kind
from domain.presentation import Look
from domain.push import Environment, Push
from push.apns.sender import ApnsAccount, ApnsSender
from push.fcm.sender import FcmAccount, FcmSender
from push.http2.pool import Pool, Timeouts
from push.sender import Answer, ProviderTrouble, Sender, Throttled, Unavailable
from simulator import Simulator
from tests.busy import crowding
from tests.push.peer import Peer, listening

SHORT = Timeouts(connect=timedelta(seconds=0.5), lease=timedelta(seconds=1), answer=timedelta(seconds=0.5))
PATIENT = Timeouts(connect=timedelta(seconds=1.5), lease=timedelta(seconds=2), answer=timedelta(seconds=1.5))
Outcome = Answer | ProviderTrouble
TASK_ID = UUID("0b0f4bd2-5c4f-4d2c-9a51-1d0a3f1c7e01")
ATTEMPT_ID = UUID("7a0c1d5e-0a41-4d57-8b0d-64d4f2c3b902")
APNS_TOKEN = "ab" * 32
FCM_TOKEN = "fcm-token:APA91b" + "x" * 120


def lengthened(timeouts: Timeouts) -> Timeouts:
    """Give timeouts for a peer in another process, which also waits for a core on a busy machine."""
    return Timeouts(timeouts.connect * crowding(), timeouts.lease * crowding(), timeouts.answer * crowding())


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A server that says 200 to everything, until told otherwise."""
    async with listening(Peer()) as peer:
        yield peer


@pytest.fixture
async def pool(peer: Peer) -> AsyncIterator[Pool]:
    """Connections to it, with short timeouts."""
    pool = Pool(peer.url, ca_file=None, connections=8, timeouts=SHORT)
    yield pool
    await pool.close()


@pytest.fixture(scope="session")
async def _running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    async with Simulator.start(run_dir=tmp_path_factory.mktemp("simulator")) as running:
        yield running


@pytest.fixture
async def sim(_running: Simulator) -> Simulator:
    """A simulator without phones, faults or memories."""
    _running.clear()  # it opens its ports again, which takes a running loop
    return _running


@pytest.fixture
async def apns(sim: Simulator) -> AsyncIterator[ApnsSender]:
    """The sender for its APNs."""
    sender = ApnsSender(apns_account(sim), timeouts=PATIENT)
    yield sender
    await sender.close()


@pytest.fixture
async def fcm(sim: Simulator) -> AsyncIterator[FcmSender]:
    """The sender for its FCM."""
    sender = FcmSender(fcm_account(sim), timeouts=PATIENT)
    yield sender
    await sender.close()


def apns_account(sim: Simulator) -> ApnsAccount:
    """Name the simulator's key and addresses."""
    environment = sim.environment
    return ApnsAccount(
        key_file=Path(environment["APNS_KEY_FILE"]),
        key_id=environment["APNS_KEY_ID"],
        team_id=environment["APNS_TEAM_ID"],
        topic=environment["APNS_TOPIC"],
        url=environment["APNS_URL"],
        sandbox_url=environment["APNS_SANDBOX_URL"],
        ca_file=Path(environment["APNS_CA_FILE"]),
    )


def fcm_account(sim: Simulator) -> FcmAccount:
    """Name the simulator's service account and address."""
    environment = sim.environment
    return FcmAccount(
        service_account_file=Path(environment["FCM_SERVICE_ACCOUNT_FILE"]),
        url=environment["FCM_URL"],
        ca_file=Path(environment["FCM_CA_FILE"]),
    )


async def outcome(sender: Sender, push: Push, environment: Environment = Environment.PRODUCTION) -> Outcome:
    """Send one push; trouble is given back, not raised."""
    try:
        async with sender.lease(environment) as send:
            return await send(push)
    except ProviderTrouble as trouble:
        return trouble


def made_of(trouble: object) -> tuple[object, ...]:
    """Take trouble apart, so that it can be compared."""
    match trouble:
        case Unavailable():
            return Unavailable, trouble.reason, trouble.delivery, trouble.retry_after
        case Throttled():
            return Throttled, trouble.extent, trouble.reason, trouble.retry_after
        case ProviderTrouble():
            return type(trouble), trouble.reason, trouble.retry_after
        case _:
            raise AssertionError(f"not trouble: {trouble!r}")


def make_push(
    token: str,
    *,
    body: str = "Fifteen minutes to go.",
    ttl: timedelta = timedelta(hours=1),
    public_key: bytes | None = None,
    user_id: str = "",
) -> Push:
    """Make a push; all but token, text and user is fixed."""
    return Push(
        task_id=TASK_ID,
        attempt_id=ATTEMPT_ID,
        kind=Kind.REMINDER,
        token=token,
        title="Almost there",
        body=body,
        generic_title="Reminder",
        generic_body="Open the app to see it.",
        url="fastbell://fasting-sessions/5",
        collapse_key="reminder-5",
        thread_id="thread-5",
        expires_at=datetime.now(UTC).replace(microsecond=0) + ttl,
        useful_for=ttl,
        look=Look(channel="reminders"),
        public_key=public_key,
        user_id=user_id,
    )
