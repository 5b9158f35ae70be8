"""Replays histories with the code of the present directory: `python replay.py DIRECTORY`; run by `make test-upgrade`.

It imports nothing but that code, which may be another release's.
"""

import asyncio
import importlib
import inspect
import json
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))

from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

_CLOSED = {f"EVENT_TYPE_WORKFLOW_EXECUTION_{how}" for how in ("COMPLETED", "FAILED", "CANCELED", "CONTINUED_AS_NEW")}


def open_part(recorded: dict[str, Any]) -> dict[str, Any]:
    """Give a history as it was before its workflow's last task closed it: nobody replays a closed one."""
    events = recorded["events"]
    if events[-1]["eventType"] not in _CLOSED:
        return recorded
    [*_, last] = [n for n, event in enumerate(events) if event["eventType"] == "EVENT_TYPE_WORKFLOW_TASK_SCHEDULED"]
    return recorded | {"events": events[:last]}


def known_workflows() -> dict[str, type]:
    """Find the workflows of the present directory, by name."""
    package = importlib.import_module("workflows")
    modules = [importlib.import_module(f"workflows.{each.name}") for each in pkgutil.iter_modules(package.__path__)]
    classes = [each for module in modules for _, each in inspect.getmembers(module, inspect.isclass)]
    defined = [(vars(each).get("__temporal_workflow_definition"), each) for each in classes]
    return {definition.name: each for definition, each in defined if definition is not None}


async def main(paths: Sequence[Path]) -> None:
    """Print what became of each history, as JSON: null, or the error."""
    known = known_workflows()
    replayer = Replayer(
        workflows=list(known.values()),
        workflow_runner=UnsandboxedWorkflowRunner(),
        data_converter=importlib.import_module("dispatch.client").data_converter,
    )
    results: dict[str, str | None] = {}
    for path in paths:
        recorded = open_part(json.loads(path.read_text()))
        started = recorded["events"][0]["workflowExecutionStartedEventAttributes"]["workflowType"]["name"]
        error = None
        if started not in known:
            error = f"unknown workflow {started}"
        elif any(event["eventType"] == "EVENT_TYPE_WORKFLOW_TASK_COMPLETED" for event in recorded["events"]):
            history = WorkflowHistory.from_json("recorded", json.dumps(recorded))
            failure = (await replayer.replay_workflow(history, raise_on_replay_failure=False)).replay_failure
            error = str(failure) if failure else None
        results[path.stem] = error
    sys.stdout.write(f"{json.dumps(results)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sorted(Path(sys.argv[1]).glob("*.json"))))
    os._exit(0)  # the SDK's threads may crash an interpreter that shuts down
