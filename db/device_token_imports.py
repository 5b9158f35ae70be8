"""Imports of device tokens: registrations that change nobody's row but add one, many in few statements."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.device_tokens import Registration, locks_of, note
from db.engine import free_names, present_instant
from db.models.people import DeviceToken
from domain.devices import Permission


@dataclass(frozen=True, slots=True)
class NewDevice:
    """A registration that may be a user's first at an installation."""

    user_id: str
    installation_id: UUID
    registration: Registration


async def register_new(db: AsyncSession, devices: Sequence[NewDevice], *, most: int | None) -> set[UUID]:
    """Register those installations that change nobody else's row, in few statements; gives their ids.

    The others are left to `register`: a token or an installation that is known, more than `most` installations, a
    ticket, a person who is being erased, and what another transaction holds. Waits for no lock. No installation and
    no token may occur twice.
    """
    simple = [each for each in devices if _is_simple(each.registration)]
    locks = {each.installation_id: {*locks_of(*_named(each))} for each in simple}
    free = await free_names(db, {name for names in locks.values() for name in names})
    rows = {each.installation_id: each for each in simple if locks[each.installation_id] <= free}
    if not rows:
        return set()
    columns = {
        "users": [each.user_id for each in rows.values()],
        "installations": list(rows),
        "providers": [each.registration.provider.value for each in rows.values()],
        "tokens": [each.registration.token for each in rows.values()],
    }
    known = set(await db.scalars(_KNOWN_AMONG, columns))
    added = Counter(each.user_id for each in rows.values())
    active = {row.user_id: row.active for row in await db.execute(_ACTIVE_OF, {"users": list(added)})}
    full = {user_id for user_id, count in added.items() if most is not None and active.get(user_id, 0) + count > most}
    new = [each for each in rows.values() if each.installation_id not in known and each.user_id not in full]
    if not new:
        return set()
    now = await present_instant(db)
    values = [_first_row(each, now) for each in new]
    stored = insert(DeviceToken).returning(DeviceToken.id, DeviceToken.installation_id)
    added_rows = (await db.execute(stored, values)).all()
    await note(db, [row.id for row in added_rows], "registered", None)
    return {row.installation_id for row in added_rows}


def _is_simple(new: Registration) -> bool:
    """Tell whether a registration has no history to be compared with."""
    has_history = (new.sign_out_digest, new.former_ticket, new.sequence) != (None, None, None)
    return not has_history and new.permission in (None, Permission.GRANTED)


def _named(device: NewDevice) -> tuple[str, UUID, Registration]:
    return device.user_id, device.installation_id, device.registration


def _first_row(device: NewDevice, now: datetime) -> dict[str, Any]:
    given = {name: value for name, value in asdict(device.registration).items() if name != "former_ticket"}
    own = {"user_id": device.user_id, "installation_id": device.installation_id}
    return given | own | {"active": True, "inactive_reason": None, "registered_at": now, "last_seen_at": now}


_KNOWN_AMONG = text("""
    SELECT asked.installation_id
      FROM unnest(CAST(:users AS text[]), CAST(:installations AS uuid[]), CAST(:providers AS text[]),
                  CAST(:tokens AS text[])) AS asked (user_id, installation_id, provider, token)
     WHERE EXISTS (SELECT FROM device_tokens d
                    WHERE d.user_id = asked.user_id AND d.installation_id = asked.installation_id)
        OR EXISTS (SELECT FROM device_tokens d WHERE d.active AND d.installation_id = asked.installation_id)
        OR EXISTS (SELECT FROM device_tokens d
                    WHERE d.active AND d.provider = asked.provider AND md5(d.token) = md5(asked.token))
        OR EXISTS (SELECT FROM erasures e WHERE e.user_id = asked.user_id)
""")

_ACTIVE_OF = text("""
    SELECT user_id, count(*) AS active
      FROM device_tokens
     WHERE active AND user_id = ANY(CAST(:users AS text[]))
     GROUP BY user_id
""")
