"""Promise 9: histories recorded by earlier code, sleeping ones above all, replay with this code."""

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner
from temporalio.workflow import NondeterminismError

from temporal import data_converter
from workflows.fasting_reminder import FastingReminder
from workflows.housekeeping import OrphanSweep, Retention
from workflows.message_handoff import MessageHandoff, SendingPage
from workflows.redrive import Redrive
from workflows.test_push import TestPush

HISTORIES = {path.stem: path.read_text() for path in (Path(__file__).parent / "histories").glob("*.json")}


@pytest.mark.parametrize("name", sorted(HISTORIES))
async def test_a_recorded_history_replays(name: str) -> None:
    history = WorkflowHistory.from_json("fasting-reminder/recorded", HISTORIES[name])

    await _replayer().replay_workflow(history)


async def test_a_history_that_does_not_fit_is_noticed() -> None:
    recorded = json.loads(HISTORIES["accepted"])
    for event in recorded["events"]:
        attributes = event.get("activityTaskScheduledEventAttributes")
        if attributes:
            attributes["activityType"]["name"] = "something_else"
    history = WorkflowHistory.from_json("fasting-reminder/recorded", json.dumps(recorded))

    with pytest.raises(NondeterminismError):
        await _replayer().replay_workflow(history)


def _replayer() -> Replayer:
    return Replayer(
        workflows=[FastingReminder, MessageHandoff, SendingPage, Redrive, TestPush, OrphanSweep, Retention],
        workflow_runner=UnsandboxedWorkflowRunner(),
        data_converter=data_converter,
    )
