"""Withheld pushes: each decision not to push to a user, or to one of their phones, once."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import among
from db.models.pushes import WithheldPush
from db.push_tasks import Addressee, DueMessage
from db.unreadable import readable
from domain.kinds import Kind

Whom = tuple[str, UUID | None]  # a user's installation; None: all of them


@dataclass(frozen=True, slots=True)
class About:
    """The message that is not pushed."""

    kind: Kind
    conversation_id: UUID
    message_id: UUID
    reminder_minutes: int | None = None


async def note(db: AsyncSession, about: About, reasons: Mapping[Whom, str]) -> None:
    """Record why a message is not pushed to these users, and to those with it in their log and no active token.

    One statement for any number of users; what was recorded before stays.
    """
    columns: dict[str, list[object]] = {
        "user_ids": [user_id for user_id, _ in reasons],
        "installation_ids": [installation_id for _, installation_id in reasons],
        "reasons": list(reasons.values()),
    }
    await db.execute(_NOTE, asdict(about) | columns)


async def counts_by_message(db: AsyncSession, message_ids: Collection[UUID]) -> dict[UUID, int]:
    """Count the decisions not to push each of these messages."""
    query = select(WithheldPush.message_id, func.count()).where(among(WithheldPush.message_id, message_ids))
    return {row[0]: row[1] for row in await db.execute(query.group_by(WithheldPush.message_id))}


async def reaching_all(db: AsyncSession, task_ids: Collection[UUID]) -> set[UUID]:
    """Say which of these tasks of reminders leave no active phone of their user without a push of their message."""
    return set(await db.scalars(_REACHING_ALL, {"task_ids": list(task_ids)}))


async def reaching_not(db: AsyncSession, task_ids: Collection[UUID]) -> list[tuple[DueMessage, Sequence[Addressee]]]:
    """Give the reminders of these tasks with the phones that have no push of them, and none withheld.

    Those phones were registered after the pushes were planned. Expired reminders are left out.
    """
    by_message: dict[DueMessage, list[Addressee]] = defaultdict(list)
    for row in await db.execute(_REACHING_NOT, {"task_ids": list(task_ids)}):
        message = {name: getattr(row, name) for name in DueMessage.__slots__} | {"kind": Kind.REMINDER}
        by_message[DueMessage(**message)].append(row)
    return list(by_message.items())


# A planned push has its own state.
_NOTE = text("""
    INSERT INTO withheld_pushes (user_id, installation_id, kind, conversation_id, message_id, reminder_minutes, reason)
    SELECT new.user_id, new.installation_id, :kind, :conversation_id, :message_id, :reminder_minutes, new.reason
      FROM (SELECT *
              FROM unnest(CAST(:user_ids AS text[]), CAST(:installation_ids AS uuid[]), CAST(:reasons AS text[]))
                   AS new (user_id, installation_id, reason)
             UNION ALL
            SELECT i.user_id, NULL, 'no_active_token'
              FROM log_items i JOIN messages m ON m.id = i.message_id
             WHERE i.message_id = :message_id AND i.user_id IS DISTINCT FROM m.sender_id
               AND NOT EXISTS (SELECT FROM device_tokens d WHERE d.user_id = i.user_id AND d.active)) AS new
     WHERE NOT EXISTS (SELECT FROM push_tasks t
                        WHERE t.message_id = :message_id AND t.user_id = new.user_id
                          AND t.installation_id = coalesce(new.installation_id, t.installation_id))
     ORDER BY new.user_id
        ON CONFLICT DO NOTHING
""")

_REACHING_ALL = text("""
    SELECT t.task_id
      FROM push_tasks AS t
     WHERE t.task_id = ANY(CAST(:task_ids AS uuid[])) AND t.kind = 'reminder'
       AND NOT EXISTS (SELECT FROM device_tokens AS d
                        WHERE d.user_id = t.user_id AND d.active
                          AND NOT EXISTS (SELECT FROM push_tasks AS o
                                           WHERE o.message_id = t.message_id
                                             AND o.installation_id = d.installation_id))
""")

_REACHING_NOT = text(f"""
    SELECT DISTINCT t.message_id, t.kind, t.conversation_id, t.reminder_minutes, t.collapse_key, t.due_at,
                    t.expires_at, t.validate_only, d.id, d.installation_id
      FROM push_tasks AS t
      JOIN device_tokens AS d ON d.user_id = t.user_id AND d.active
     WHERE t.task_id = ANY(CAST(:task_ids AS uuid[])) AND t.kind = 'reminder'
       AND {readable("t.due_at")} <= statement_timestamp() AND {readable("t.expires_at")} > statement_timestamp()
       AND NOT EXISTS (SELECT FROM push_tasks AS o
                        WHERE o.message_id = t.message_id AND o.installation_id = d.installation_id)
       AND NOT EXISTS (SELECT FROM withheld_pushes AS w
                        WHERE w.message_id = t.message_id AND w.installation_id = d.installation_id)
""")  # noqa: S608 -- of our own words alone
