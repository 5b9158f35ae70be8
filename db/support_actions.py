"""Support actions: who did what, and when; never updated."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.models.operations import SupportAction
from db.unreadable import log_unreadable


@dataclass(frozen=True, slots=True)
class ShownAction:
    """What a person did."""

    at: datetime
    actor: str
    action: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. A service, an API key or a command line is no person, though its name may be somebody's user id."""

    name: str
    is_person: bool = True  # who may be erased


@dataclass(frozen=True, slots=True)
class Deed:
    """An action of somebody on subjects of one kind."""

    actor: Actor
    action: str
    subject_kind: str


async def note(db: AsyncSession, deed: Deed, subjects: Mapping[UUID, dict[str, Any]]) -> None:
    """Record an action, with a detail for each subject."""
    rows = [
        {
            "actor": deed.actor.name,
            "by_person": deed.actor.is_person,
            "action": deed.action,
            "subject_kind": deed.subject_kind,
            "subject_id": subject_id,
            "detail": detail,
        }
        for subject_id, detail in subjects.items()
    ]
    if rows:
        await db.execute(insert(SupportAction), rows)


async def about(db: AsyncSession, subject_id: UUID) -> list[ShownAction]:
    """List the actions on a subject, in order."""
    query = (
        select(SupportAction.at, SupportAction.actor, SupportAction.action, SupportAction.detail)
        .where(SupportAction.subject_id == subject_id)
        .order_by(SupportAction.id)
    )
    rows = await db.execute(query)
    return [ShownAction(at, actor, action, _detail(detail)) for at, actor, action, detail in rows]


def _detail(written: Any) -> dict[str, Any]:  # noqa: ANN401 -- what any release wrote
    if isinstance(written, dict):
        return written
    log_unreadable("support_actions.detail", written)
    return {}
