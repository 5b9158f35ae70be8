"""A user's device tokens as they are shown; to support each with its history."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession

from db import device_tokens
from db.engine import among
from db.models.people import DeviceToken
from db.unreadable import known_or_none, word
from db.views import answer_of
from domain.devices import Permission, ReportedPermission
from domain.push import Environment, Provider

_EVENTS = 50  # of one token


SHOWN = 6  # last characters of a token that are ever shown


@dataclass(frozen=True, slots=True)
class ShownTokenEvent:
    """Something that happened to a device token."""

    at: datetime
    event: str  # registered, reactivated, rotated, transferred, signed_out, invalidated, permission_told
    reason: str | None  # the provider's (invalidated), too_many_installations (signed_out), or the permission


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A device token."""

    id: UUID
    installation_id: UUID
    provider: Provider
    app_id: str | None
    environment: Environment
    token: str  # its last 6 characters; nothing of a very short one
    active: bool
    inactive_reason: str | None
    refresh_required: bool  # the app should fetch its token from the system and register again
    registered_at: datetime
    last_seen_at: datetime
    locale: str | None
    time_zone: str | None
    app_version: str | None
    os_version: str | None
    permission: Permission | None  # as the app reported at its last registration; None: it did not
    has_public_key: bool  # whether texts can be sealed for this installation


@dataclass(frozen=True, slots=True)
class ShownDevice(ShownToken):
    """A device token with its history, for support."""

    history: list[ShownTokenEvent]  # the latest first, at most 50, as long as events are kept


async def of_user(db: AsyncSession, user_id: str, after: tuple[datetime, UUID] | None, limit: int) -> list[ShownDevice]:
    """List somebody's device tokens, the last seen first, from below one's (last_seen_at, id)."""
    rows = await device_tokens.owned_by(db, user_id, after, limit)
    in_use = {row.installation_id for row in await device_tokens.active_for_user(db, user_id)}
    history = await _history(db, [row.id for row in rows])
    return [ShownDevice(**asdict(shown(row, in_use)), history=history.get(row.id, [])) for row in rows]


def shown(row: DeviceToken, in_use: Collection[UUID]) -> ShownToken:
    """Show a row; `in_use` are the installations that have an active token."""
    return answer_of(
        ShownToken,
        row,
        token=row.token[-SHOWN:] if len(row.token) > 2 * SHOWN else "",
        refresh_required=row.inactive_reason == "invalidated" and row.installation_id not in in_use,
        permission=None if row.permission is None else word(Permission, row.permission, "device_tokens.permission"),
        has_public_key=row.public_key is not None,
    )


async def permissions(
    db: AsyncSession, phones: Collection[tuple[str, UUID]]
) -> dict[tuple[str, UUID], ReportedPermission]:
    """Give what the apps of these users reported at their last registrations on these installations."""
    if not phones:
        return {}
    users, installations = {user_id for user_id, _ in phones}, {installation_id for _, installation_id in phones}
    latest = (
        select(DeviceToken.user_id, DeviceToken.installation_id, DeviceToken.permission, DeviceToken.registered_at)
        .where(among(DeviceToken.user_id, users), among(DeviceToken.installation_id, installations))
        .ext(distinct_on(DeviceToken.user_id, DeviceToken.installation_id))
        .order_by(DeviceToken.user_id, DeviceToken.installation_id, DeviceToken.registered_at.desc())
    )
    reported = {}
    for row in await db.execute(latest):
        known = row.permission and word(Permission, row.permission, "device_tokens.permission")
        at = known_or_none(row.registered_at)
        if known is not None and at is not None:
            reported[row.user_id, row.installation_id] = ReportedPermission(known, at)
    return reported


async def _history(db: AsyncSession, device_ids: Collection[UUID]) -> dict[UUID, list[ShownTokenEvent]]:
    history: dict[UUID, list[ShownTokenEvent]] = {}
    for device_id, at, event, reason in await db.execute(_LATEST, {"device_ids": list(device_ids), "most": _EVENTS}):
        history.setdefault(device_id, []).append(ShownTokenEvent(at, event, reason))
    return history


_LATEST = text("""
    SELECT e.device_id, e.at, e.event, e.reason
      FROM unnest(CAST(:device_ids AS uuid[])) AS asked (device_id)
     CROSS JOIN LATERAL (
        SELECT * FROM device_token_events WHERE device_id = asked.device_id ORDER BY id DESC LIMIT :most
     ) AS e
     ORDER BY e.id DESC
""")
