"""The README's walk-through with a generated Python client: walk_through.py BASE_URL API_KEY DEVICE_TOKEN."""

import sys
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from fastbell_client import AuthenticatedClient
from fastbell_client.api.device_tokens import register_device_token_for_user, sign_out_installation_for_user
from fastbell_client.api.events import list_events
from fastbell_client.api.fasting_sessions import (
    change_fasting_session_for_user,
    end_fasting_session_for_user,
    read_fasting_session_for_user,
    start_fasting_session_for_user,
)
from fastbell_client.models import (
    ChangeIn,
    EventList,
    Provider,
    RegistrationIn,
    ReminderState,
    SessionOut,
    SessionStatus,
    StartIn,
)

ANSWER_WITHIN = 30.0  # seconds


def main(base_url: str, api_key: str, device_token: str) -> None:
    """Walk through; prints the reminder's state and what became of its push."""
    user, phone, fast = f"carol-{uuid4()}", uuid4(), uuid4()
    with AuthenticatedClient(base_url, api_key) as client:
        registration = RegistrationIn(provider=Provider.APNS, token=device_token, locale="de-AT")
        register_device_token_for_user.sync(user, phone, client=client, body=registration)

        start = StartIn(ends_at=datetime.now(UTC) + timedelta(hours=16), reminder_minutes=[1])
        start_fasting_session_for_user.sync(user, fast, client=client, body=start)
        change = ChangeIn(ends_at=datetime.now(UTC) + timedelta(seconds=62))
        change_fasting_session_for_user.sync(user, fast, client=client, body=change)

        begun_at = time.monotonic()
        while True:
            read = read_fasting_session_for_user.sync(user, fast, client=client)
            assert isinstance(read, SessionOut), read
            state = read.reminders[0].state
            if state not in {ReminderState.SCHEDULED, ReminderState.DUE}:
                break
            assert time.monotonic() - begun_at < ANSWER_WITHIN, read
            time.sleep(0.1)

        ended = end_fasting_session_for_user.sync(user, fast, client=client)
        assert isinstance(ended, SessionOut), ended
        assert ended.status is SessionStatus.BROKEN
        accepted, cursor, has_more = [], 0, True
        while has_more:
            events = list_events.sync(client=client, after=cursor, types=["push.accepted"], limit=500)
            assert isinstance(events, EventList), events
            accepted += [event.type_ for event in events.items if event.user_id == user]
            cursor, has_more = events.next_cursor, events.has_more
        sign_out_installation_for_user.sync_detailed(user, phone, client=client)
    print(state, *accepted)


if __name__ == "__main__":
    main(*sys.argv[1:])
