"""PostgreSQL is away as a reminder comes due: its worker stops when it is told to, and another one has it later."""

import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from simulator import Simulator
from tests.busy import in_time
from tests.servers import part
from tests.stack import Stack, iphone

pytestmark = pytest.mark.long


@pytest.fixture(params=["refuses", "never answers"])
def away(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a PostgreSQL that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes connections, and that is all
        port = silent.getsockname()[1]
        if request.param == "refuses":
            silent.close()
        yield f"postgresql://postgres@127.0.0.1:{port}/away"


async def test_a_worker_without_postgresql_stops_when_it_is_told_to_and_leaves_its_reminder_to_another(
    without_worker: Stack, simulator: Simulator, worker_settings: Callable[[], dict[str, str]], away: str
) -> None:
    user, phone = without_worker.user(), iphone()
    await user.register(phone)
    async with part(worker_settings() | {"DATABASE_URL": away}, "worker.py") as worker:
        await worker.says("worker ready")
        session_id = await user.start_fast(due_in=1.0)
        await worker.says("activity failed")

        told_at = time.monotonic()
        status = await worker.end(signal.SIGTERM)
        took = time.monotonic() - told_at

    said = "".join(worker.lines)
    assert status == 0
    assert in_time(took, 20.0)  # a connection that is never answered takes half of them; it is killed after 45
    assert "worker stopped" in said
    assert "did not stop in time" not in said
    assert "panicked" not in said
    async with part(worker_settings(), "worker.py"):
        assert await without_worker.finished(session_id) == "accepted"
    assert len(simulator.requests.for_token(phone.token)) == 1
