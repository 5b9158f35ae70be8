"""The README's walk-through with a generated Python client: walk_through.py BASE_URL BEARER_TOKEN DEVICE_TOKEN."""

import sys
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from fastbell_client import AuthenticatedClient
from fastbell_client.api.device_tokens import register_device_token, sign_out_installation
from fastbell_client.api.fasting_sessions import (
    change_fasting_session,
    end_fasting_session,
    read_fasting_session,
    start_fasting_session,
)
from fastbell_client.models import ChangeIn, Provider, RegistrationIn, ReminderState, SessionOut, SessionStatus, StartIn

ANSWER_WITHIN = 30.0  # seconds


def main(base_url: str, bearer: str, device_token: str) -> None:
    """Walk through, and print the reminder's state at the end."""
    installation_id, session_id = uuid4(), uuid4()
    with AuthenticatedClient(base_url, bearer) as client:
        phone = RegistrationIn(provider=Provider.APNS, token=device_token, locale="de-AT")
        register_device_token.sync(installation_id, client=client, body=phone)

        goal = datetime.now(UTC) + timedelta(hours=16)
        start = StartIn(ends_at=goal, reminder_minutes=[1])
        start_fasting_session.sync(session_id, client=client, body=start)
        change = ChangeIn(ends_at=datetime.now(UTC) + timedelta(seconds=62))
        change_fasting_session.sync(session_id, client=client, body=change)

        started_at = time.monotonic()
        while True:
            fast = read_fasting_session.sync(session_id, client=client)
            assert isinstance(fast, SessionOut), fast
            state = fast.reminders[0].state
            if state not in {ReminderState.SCHEDULED, ReminderState.DUE}:
                break
            assert time.monotonic() - started_at < ANSWER_WITHIN, fast
            time.sleep(0.1)

        ended = end_fasting_session.sync(session_id, client=client)
        assert isinstance(ended, SessionOut), ended
        assert ended.status is SessionStatus.BROKEN
        sign_out_installation.sync_detailed(installation_id, client=client)
    print(state)


if __name__ == "__main__":
    main(*sys.argv[1:])
