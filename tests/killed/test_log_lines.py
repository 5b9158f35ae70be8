"""Whatever goes wrong, each line that a process logs is JSON: a pipeline of logs reads no other."""

import json
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from domain.naming import push_queue
from domain.push import Provider
from simulator import Simulator
from tests.servers import TemporalServer, free_port, part
from tests.stack import StackPlace, eventually


@pytest.mark.timeout(120)
async def test_what_the_temporal_sdk_says_of_a_lost_server_is_json_like_all_else(
    new_database: Callable[[str], Awaitable[str]], simulator: Simulator, server: TemporalServer
) -> None:
    place = StackPlace(await new_database("log_lines"), server.address, "default", simulator)
    await server.run()
    async with part(place.environment(METRICS_PORT=str(free_port())), "worker.py") as worker:
        await worker.says("worker ready")
        await eventually(lambda: _is_polled(server.address))
        server.kill()
        await worker.says("retried", within=40)  # the SDK's core counts its polls that failed
        await worker.end(signal.SIGTERM)

    told: list[dict[str, Any]] = [json.loads(line) for line in worker.lines]
    [first, *_] = [line for line in told if line["logger"].startswith("temporalio-sdk_core::")]
    assert first["level"] == "warning"
    assert {"event", "timestamp"} <= first.keys()
    assert told[-1]["event"] == "worker stopped"


async def _is_polled(address: str) -> bool:
    client = await Client.connect(address)
    request = DescribeTaskQueueRequest(
        namespace="default",
        task_queue=TaskQueue(name=push_queue(Provider.APNS)),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    return bool((await client.workflow_service.describe_task_queue(request)).pollers)
