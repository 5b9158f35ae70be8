"""Promise 9: histories recorded by earlier code, sleeping ones above all, replay with this code."""

import gc
import json
import weakref
from base64 import b64encode
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Interceptor, Replayer, WorkflowInstance, WorkflowInstanceDetails
from temporalio.workflow import NondeterminismError

from dispatch.client import data_converter
from fleet.interceptors import FreeingRunner
from telemetry.temporal_tracing import Tracing
from tests.stack import eventually
from workflows.fasting_reminder import FastingReminder
from workflows.housekeeping import OrphanSweep, Retention
from workflows.message_handoff import MessageHandoff, SendingPage
from workflows.redrive import DiagnosticPush, Redrive
from workflows.webhook_follower import WebhookFollower

HISTORIES = {path.stem: path.read_text() for path in (Path(__file__).parent / "histories").glob("*.json")}


@pytest.mark.parametrize("name", sorted(HISTORIES))
async def test_a_recorded_history_replays(name: str) -> None:
    history = WorkflowHistory.from_json("fasting-reminder/recorded", HISTORIES[name])

    await _replayer().replay_workflow(history)


@pytest.mark.parametrize("name", sorted(HISTORIES))
async def test_a_history_that_was_recorded_untraced_or_traced_replays_where_tracing_is_on(name: str) -> None:
    recorded = json.loads(HISTORIES[name])
    await _replayer(Tracing()).replay_workflow(WorkflowHistory.from_json("recorded", json.dumps(recorded)))

    carried = json.dumps({"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}).encode()
    header = {"metadata": {"encoding": b64encode(b"json/plain").decode()}, "data": b64encode(carried).decode()}
    recorded["events"][0]["workflowExecutionStartedEventAttributes"]["header"] = {"fields": {"_tracer-data": header}}
    await _replayer(Tracing()).replay_workflow(WorkflowHistory.from_json("recorded", json.dumps(recorded)))


async def test_a_history_that_does_not_fit_is_noticed() -> None:
    recorded = json.loads(HISTORIES["accepted"])
    for event in recorded["events"]:
        attributes = event.get("activityTaskScheduledEventAttributes")
        if attributes:
            attributes["activityType"]["name"] = "something_else"
    history = WorkflowHistory.from_json("fasting-reminder/recorded", json.dumps(recorded))

    with pytest.raises(NondeterminismError):
        await _replayer().replay_workflow(history)


@pytest.mark.parametrize(
    "name", ["asleep", "asleep-unsignalled", "moved", "accepted", "accepted-briefly", "handed-off"]
)
async def test_a_workflow_that_leaves_the_cache_leaves_nothing_to_the_garbage_collector(name: str) -> None:
    workflows: list[weakref.ref[object]] = []

    class Watched(FreeingRunner):
        def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
            instance = super().create_instance(det)
            workflows.append(weakref.ref(instance))
            return instance

    gc.collect()
    gc.disable()
    try:
        await _replayer(runner=Watched()).replay_workflow(WorkflowHistory.from_json("recorded", HISTORIES[name]))

        async def is_gone() -> bool:  # the thread that ran it may hold it for a moment longer
            return [each() for each in workflows] == [None]

        await eventually(is_gone)
    finally:
        gc.enable()


def _replayer(*interceptors: Interceptor, runner: FreeingRunner | None = None) -> Replayer:
    return Replayer(
        workflows=[
            *(FastingReminder, MessageHandoff, SendingPage, Redrive, DiagnosticPush),
            *(OrphanSweep, Retention, WebhookFollower),
        ],
        workflow_runner=runner or FreeingRunner(),
        data_converter=data_converter,
        interceptors=interceptors,
    )
