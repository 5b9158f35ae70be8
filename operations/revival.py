"""Revivals: a phone that registers again gets the pushes that it missed without a token."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.device_tokens import ActiveToken
from db.engine import among
from db.models.people import DeviceToken
from db.models.pushes import PushAttempt, PushTask
from operations.redrive import OUTBOX_KIND
from telemetry import tracing


async def revive(db: AsyncSession, device: DeviceToken | ActiveToken) -> int:
    """Make pushes pending again that failed because of the token alone and have not expired; returns how many.

    Of each collapse group only the newest, and only the user's own. They go to the new token, whatever its provider,
    app and environment. One statement, which waits for no lock: locked pushes stay as they are.
    """
    values = {
        "user_id": device.user_id,
        "installation_id": device.installation_id,
        "device_id": device.id,
        "provider": device.provider,
        "app_id": device.app_id,
        "environment": device.environment,
        "outbox_kind": OUTBOX_KIND,
        "traceparent": tracing.traceparent(),
    }
    return len((await db.execute(_REVIVE, values)).all())


async def registered_meanwhile(db: AsyncSession, task_ids: Collection[UUID]) -> Sequence[DeviceToken]:
    """List the tokens that were registered while these tasks were refused for older ones."""
    began_at = select(func.max(PushAttempt.started_at)).where(PushAttempt.task_id == PushTask.task_id)
    query = (
        select(DeviceToken)
        .join(PushTask, PushTask.installation_id == DeviceToken.installation_id)
        .where(among(PushTask.task_id, task_ids), PushTask.user_id == DeviceToken.user_id)
        .where(DeviceToken.active, DeviceToken.registered_at > began_at.scalar_subquery())
    )
    return (await db.scalars(query)).unique().all()


# A batch of other people's pushes may wait for this: each subquery reads the end of an index.
_REVIVE = text("""
    WITH missed AS (
        SELECT t.*
          FROM (SELECT DISTINCT ON (collapse_key) task_id
                  FROM push_tasks
                 WHERE installation_id = :installation_id AND synced_at IS NULL AND expires_at > clock_timestamp()
                   AND (state = 'unregistered'
                        OR state = 'withdrawn' AND last_reason IN ('no_active_token', 'token_changed'))
                 ORDER BY collapse_key, due_at DESC) AS latest
          JOIN push_tasks t USING (task_id)
         WHERE t.user_id = :user_id AND t.opened_at IS NULL AND t.state IN ('unregistered', 'withdrawn')
           AND NOT t.validate_only
           AND coalesce(t.due_at >= (SELECT max(o.due_at) FROM push_tasks o
                                      WHERE o.installation_id = t.installation_id AND o.collapse_key = t.collapse_key
                                        AND o.state = 'accepted' AND o.synced_at IS NULL), true)
           AND coalesce(t.due_at >= (SELECT max(o.due_at) FROM push_tasks o
                                      WHERE o.installation_id = t.installation_id AND o.collapse_key = t.collapse_key
                                        AND o.state = 'pending' AND o.synced_at IS NULL), true)
           FOR UPDATE OF t SKIP LOCKED
    ), revived AS (
        UPDATE push_tasks t
           SET state = 'pending', next_attempt_at = clock_timestamp(), settled_at = NULL, again_at = clock_timestamp(),
               held_by = NULL,
               device_id = :device_id, provider = :provider, app_id = :app_id, environment = :environment
          FROM missed
         WHERE t.task_id = missed.task_id
        RETURNING t.task_id
    ), remembered AS (
        INSERT INTO withheld_pushes (at, user_id, installation_id, kind, conversation_id, message_id, reminder_minutes,
                                     reason)
        SELECT settled_at, user_id, installation_id, kind, conversation_id, message_id, reminder_minutes, last_reason
          FROM missed
         WHERE state = 'withdrawn' AND settled_at IS NOT NULL
            ON CONFLICT DO NOTHING
    )
    INSERT INTO outbox (subject_kind, subject_id, next_attempt_at, traceparent)
    SELECT :outbox_kind, task_id, clock_timestamp(), :traceparent FROM revived
    RETURNING subject_id
""")
