"""A stack with a simulator of its own, whose worker has less patience than in production."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from domain.push import Provider
from push.apns.sender import ApnsAccount, ApnsSender
from push.fcm.sender import FcmAccount, FcmSender
from push.http2.pool import DEFAULT_TIMEOUTS, Timeouts
from push.registry import Key, SenderRegistry
from push.sender import Sender
from simulator import Simulator
from tests.faults.service import Service
from tests.routes.worker_harness import worker_harness
from tests.stack import StackPlace, make_app, make_stack

IMPATIENT = Timeouts(connect=timedelta(seconds=1), lease=timedelta(seconds=2), answer=timedelta(seconds=2))


@pytest.fixture(scope="session")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Simulator]:
    """Providers that are in trouble for these tests alone."""
    async with Simulator.start(run_dir=tmp_path_factory.mktemp("faults")) as simulator:
        yield simulator


@pytest.fixture(scope="session")
async def _service(
    new_database: Callable[[str], Awaitable[str]], temporal: str, simulator: Simulator
) -> AsyncIterator[Service]:
    place = StackPlace(await new_database("faults"), temporal, "faults", simulator)
    environment = place.environment()
    app = make_app(place)
    async with make_stack(place, app) as stack, worker_harness(stack) as worker:
        _replace_senders(worker.dependencies.apps, environment, IMPATIENT)
        async with worker.employed():
            await stack.user().start_fast(due_in=3600)  # the first one takes a second on a busy machine
            yield Service(stack, worker, simulator)


@pytest.fixture
async def service(_service: Service) -> AsyncIterator[Service]:
    """The service, with a connection to each provider that has carried a push already."""
    _service.simulator.clear()
    await _service.warm_up()
    yield _service
    async with _service.stack.sessions.begin() as db:
        await db.execute(text("TRUNCATE brakes"))


@pytest.fixture
async def patient(service: Service) -> AsyncIterator[Service]:
    """The service with as much patience as in production: a slow call goes on until the faults are cleared."""
    apps, environment = service.worker.dependencies.apps, service.stack.place.environment()
    impatient = _replace_senders(apps, environment, DEFAULT_TIMEOUTS)
    await service.warm_up()
    yield service
    for sender in apps.replace(impatient, None):
        await sender.close()


def _replace_senders(apps: SenderRegistry, environment: dict[str, str], timeouts: Timeouts) -> dict[Key, Sender]:
    """Give an app's senders other timeouts; returns those before."""
    authority = Path(environment["APNS_CA_FILE"])
    apns = ApnsAccount(
        key_file=Path(environment["APNS_KEY_FILE"]),
        key_id=environment["APNS_KEY_ID"],
        team_id=environment["APNS_TEAM_ID"],
        topic=environment["APNS_TOPIC"],
        url=environment["APNS_URL"],
        sandbox_url=environment["APNS_SANDBOX_URL"],
        ca_file=authority,
    )
    fcm = FcmAccount(
        service_account_file=Path(environment["FCM_SERVICE_ACCOUNT_FILE"]),
        url=environment["FCM_URL"],
        ca_file=authority,
    )
    senders: dict[Key, Sender] = {
        (Provider.APNS, None): ApnsSender(apns, timeouts=timeouts),
        (Provider.FCM, None): FcmSender(fcm, timeouts=timeouts),
    }
    before = {key: sender for key in senders if (sender := apps.sender(*key))}
    apps.replace(senders, None)
    return before
