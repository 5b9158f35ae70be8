"""PostgreSQL fails over: for a while its server answers and takes no writes. Nobody has to restart anything."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from simulator import Simulator
from tests.busy import in_time
from tests.conftest import NewDatabase
from tests.failover import Failover
from tests.stack import Stack, StackPlace, iphone, open_stack, start_held

pytestmark = pytest.mark.long


@pytest.fixture
async def place(new_database: NewDatabase, temporal: str, simulator: Simulator) -> StackPlace:
    """Where a stack stands whose database fails over."""
    return StackPlace(await new_database(f"fails_over_{uuid4().hex[:6]}"), temporal, "postgres", simulator)


@pytest.fixture
async def failover(place: StackPlace, postgres: str) -> AsyncIterator[Failover]:
    """What makes it fail over."""
    async with Failover.of(postgres, place.database_url) as failover:
        yield failover


async def test_api_and_worker_are_well_by_themselves_once_the_primary_is_back(
    place: StackPlace, failover: Failover, simulator: Simulator
) -> None:
    async with open_stack(place) as stack:
        user, phone = stack.user(), iphone()
        await user.register(phone)
        [armed] = await start_held(user, due_in=2.0)
        [task] = await stack.tasks(armed)

        await failover.begin()
        statuses = [(await _write(stack)) for _ in range(5)]
        problem = await user.call("PUT", f"/v1/device-tokens/{phone.installation_id}", _token(phone.token))
        ready = await stack.http.get("/readyz")
        while datetime.now(UTC) < task.due_at + timedelta(seconds=0.3):  # it comes due without a database
            await asyncio.sleep(0.05)
        await failover.end()
        back_at = time.monotonic()

        assert statuses == [503] * 5
        assert problem.json()["type"] == "urn:fastbell:problem:unavailable"
        assert problem.headers["Retry-After"] == "1"
        assert ready.status_code == 503
        assert (await stack.http.get("/readyz")).status_code == 200
        assert await _write(stack) == 200
        assert await stack.finished(armed) == "accepted"
        assert in_time(time.monotonic() - back_at, 10.0)
        assert len(simulator.requests.for_token(phone.token)) == 1
        later = await user.start_fast(due_in=0.5)
        assert await stack.finished(later) == "accepted"


def _token(token: str) -> dict[str, str]:
    return {"provider": "apns", "token": token}


async def _write(stack: Stack) -> int:
    answer = await stack.user().call("PUT", f"/v1/device-tokens/{uuid4()}", _token(iphone().token))
    return answer.status_code
