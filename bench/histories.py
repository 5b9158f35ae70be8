"""What a reminder leaves in Temporal: history events, and the actions that Temporal Cloud would bill."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from domain.naming import reminder_workflow_id

_WITH_THE_START = 2  # the place of that signal
_LOCAL_ACTIVITY = "core_local_activity"  # the marker that the SDK records for each


async def events_and_actions(client: Client, session_ids: Sequence[UUID]) -> tuple[float, float]:
    """Give the means over these sessions' workflows."""
    events = actions = 0
    for session_id in session_ids:
        history = await client.get_workflow_handle(reminder_workflow_id(session_id)).fetch_history()
        events += len(history.events)
        actions += billable_actions(history.events)
    return events / len(session_ids), actions / len(session_ids)


def billable_actions(events: Iterable[HistoryEvent]) -> int:
    """Count as https://docs.temporal.io/cloud/actions says; a workflow task's local activities count as one.

    The signal that comes with the start is part of the start: nothing lies between the two.
    """
    actions = 0
    with_local_activities: set[int] = set()
    for event in events:
        match event.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                actions += event.event_id > _WITH_THE_START
            case (
                EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED
                | EventType.EVENT_TYPE_TIMER_STARTED
                | EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES
            ):
                actions += 1
            case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                actions += event.activity_task_started_event_attributes.attempt
            case EventType.EVENT_TYPE_MARKER_RECORDED:
                marker = event.marker_recorded_event_attributes
                if marker.marker_name == _LOCAL_ACTIVITY:
                    with_local_activities.add(marker.workflow_task_completed_event_id)
            case _:
                pass
    return actions + len(with_local_activities)
