"""What is counted as a provider call."""

from collections.abc import Awaitable, Callable

from sqlalchemy import text

from db.engine import make_engine, make_sessions
from db.views import analytics
from db.views.analytics import SPANS

_DEVICE = """
    INSERT INTO device_tokens (id, user_id, installation_id, provider, environment, token, active, registered_at,
                               last_seen_at)
    VALUES ('00000000-0000-0000-0000-000000000001', 'u', gen_random_uuid(), 'apns', 'production', 't', true, now(),
            now())
"""
_PUSH = """
    INSERT INTO push_tasks (task_id, kind, user_id, installation_id, device_id, provider, environment, conversation_id,
                            message_id, collapse_key, due_at, expires_at, attempt_count, state)
    SELECT '00000000-0000-0000-0000-000000000002', 'reminder', 'u', installation_id, id, provider, environment,
           gen_random_uuid(), gen_random_uuid(), 'k', now() - interval '1 minute', now(), 4, 'pending'
      FROM device_tokens
"""
_ATTEMPTS = """
    INSERT INTO push_attempts (attempt_id, task_id, number, started_at, outcome, reason, latency_ms)
    SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000002', number, now(), outcome, reason, latency_ms
      FROM (VALUES (1, 'unavailable', 'claim_too_old', 0), (2, 'unavailable', 'readdressed', 0),
                   (3, 'unknown', 'ServiceUnavailable', 200), (4, 'accepted', NULL, 100))
           AS attempts (number, outcome, reason, latency_ms)
"""


async def test_attempts_that_made_no_call_are_no_calls(new_database: Callable[[str], Awaitable[str]]) -> None:
    engine = make_engine(await new_database("uncalled"))
    sessions = make_sessions(engine)
    async with sessions.begin() as db:
        for statement in (_DEVICE, _PUSH, _ATTEMPTS):
            await db.execute(text(statement))

    steps = await analytics.lately(sessions, SPANS[0])

    assert [(each.calls, each.refused, each.call_p50) for each in steps if each.calls] == [(2, 1, 0.15)]
    await engine.dispose()
