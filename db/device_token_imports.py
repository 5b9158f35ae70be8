"""Batches of device tokens: registrations that concern no row but their own, many in few statements."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from db.device_tokens import Registration, locks_of, note
from db.engine import free_names, hold_names, present_instant
from db.models.people import DeviceToken
from domain.devices import Permission


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """What a backend wants of a user's installation. A registration of None: that it is signed out."""

    user_id: str
    installation_id: UUID
    registration: Registration | None
    is_import: bool = False  # of what another sender knew: what phones have said themselves is newer

    @property
    def address(self) -> tuple[str, str] | None:
        """Give the provider and the token."""
        return None if self.registration is None else (self.registration.provider, self.registration.token)


async def register_all(db: AsyncSession, requests: Sequence[DeviceRequest], *, most: int | None) -> set[UUID]:
    """Register those installations that change no other row, in few statements; gives their ids.

    They are new, or registered again as they are. Imports that have nothing to change are among them. The others are
    left to `register`: a token or an installation of somebody else, more than `most` installations, a ticket, missed
    pushes, a person who is being erased, and what another transaction holds. Waits for no lock. No installation and
    no token may occur twice.
    """
    simple = [each for each in requests if each.registration is not None and _is_simple(each.registration)]
    locks = {each.installation_id: {*_locks(each)} for each in simple}
    free = await free_names(db, {name for names in locks.values() for name in names})
    lockable = [each for each in simple if locks[each.installation_id] <= free]
    if not lockable:
        return set()
    known = {row.installation_id: row for row in await db.execute(_KNOWN, _columns(lockable))}
    done = {each.installation_id for each in lockable if each.is_import and known[each.installation_id].is_settled}
    lockable = [
        each for each in lockable if each.installation_id not in done and not known[each.installation_id].is_erased
    ]
    new = [each for each in lockable if not known[each.installation_id].is_known]
    added = Counter(each.user_id for each in new)
    active = {
        row.user_id: row.active for row in await db.execute(_ACTIVE_OF, {"users": [each.user_id for each in lockable]})
    }
    full = {
        each.user_id
        for each in lockable
        if most is not None and active.get(each.user_id, 0) + added[each.user_id] > most
    }
    again = [each for each in lockable if known[each.installation_id].is_known and not each.is_import]
    return (
        done
        | await _add(db, [each for each in new if each.user_id not in full])
        | await _renew(db, [each for each in again if each.user_id not in full])
    )


async def is_settled(db: AsyncSession, request: DeviceRequest) -> bool:
    """Tell whether an import has nothing to change, and hold off other registrations until the transaction ends."""
    await hold_names(db, _locks(request))
    row = (await db.execute(_KNOWN, _columns([request]))).one()
    return bool(row.is_settled)


async def _add(db: AsyncSession, new: Sequence[DeviceRequest]) -> set[UUID]:
    if not new:
        return set()
    now = await present_instant(db)
    stored = insert(DeviceToken).returning(DeviceToken.id, DeviceToken.installation_id)
    rows = (await db.execute(stored, [_first_row(each, now) for each in new])).all()
    await note(db, [row.id for row in rows], "registered", None)
    return {row.installation_id for row in rows}


async def _renew(db: AsyncSession, again: Sequence[DeviceRequest]) -> set[UUID]:
    """Register again what is registered just so: `register` would change nothing but these columns."""
    if not again:
        return set()
    registrations = [each.registration for each in again]
    reported = {name: [getattr(each, name) for each in registrations] for name in _TOLD}
    return set(await db.scalars(_RENEW, _columns(again) | reported))


def _is_simple(new: Registration) -> bool:
    """Tell whether a registration has no history to be compared with."""
    has_history = (new.sign_out_digest, new.former_ticket, new.sequence) != (None, None, None)
    return not has_history and new.permission in (None, Permission.GRANTED)


def _locks(request: DeviceRequest) -> Collection[str]:
    assert request.registration is not None
    return locks_of(request.user_id, request.installation_id, request.registration)


def _columns(requests: Sequence[DeviceRequest]) -> dict[str, list[Any]]:
    addresses = [each.address for each in requests if each.address is not None]
    return {
        "users": [each.user_id for each in requests],
        "installations": [each.installation_id for each in requests],
        "providers": [provider for provider, _ in addresses],
        "tokens": [token for _, token in addresses],
    }


def _first_row(request: DeviceRequest, now: datetime) -> dict[str, Any]:
    assert request.registration is not None
    given = {name: value for name, value in asdict(request.registration).items() if name != "former_ticket"}
    own = {"user_id": request.user_id, "installation_id": request.installation_id}
    return given | own | {"active": True, "inactive_reason": None, "registered_at": now, "last_seen_at": now}


# Item by item: `EXISTS` may become a hash of the whole table, by a plan that was made while it was small.
# `is_known`: there is more to a registration than one new row. `is_settled`: an import is older than what is known.
_KNOWN = text("""
    SELECT asked.installation_id, is_here OR is_active AS is_known, NOT is_erased AND (had OR is_active) AS is_settled,
           is_erased
      FROM unnest(CAST(:users AS text[]), CAST(:installations AS uuid[]), CAST(:providers AS text[]),
                  CAST(:tokens AS text[])) AS asked (user_id, installation_id, provider, token)
     CROSS JOIN LATERAL (
        SELECT (SELECT true FROM device_tokens d
                 WHERE d.user_id = asked.user_id AND d.installation_id = asked.installation_id LIMIT 1) IS TRUE
               AS is_here,
               (SELECT true FROM device_tokens d
                 WHERE d.user_id = asked.user_id AND d.provider = asked.provider AND md5(d.token) = md5(asked.token)
                 LIMIT 1) IS TRUE
               AS had,
               (SELECT true FROM device_tokens d
                 WHERE d.active AND d.installation_id = asked.installation_id LIMIT 1) IS TRUE
            OR (SELECT true FROM device_tokens d
                 WHERE d.active AND d.provider = asked.provider AND md5(d.token) = md5(asked.token) LIMIT 1) IS TRUE
               AS is_active,
               (SELECT true FROM erasures e WHERE e.user_id = asked.user_id LIMIT 1) IS TRUE AS is_erased
     ) AS found
""")

_ACTIVE_OF = text("""
    SELECT asked.user_id,
           (SELECT count(*) FROM device_tokens d WHERE d.active AND d.user_id = asked.user_id) AS active
      FROM (SELECT DISTINCT user_id FROM unnest(CAST(:users AS text[])) AS each (user_id)) AS asked
""")

_TOLD = ("environment", "app_id", "locale", "time_zone", "app_version", "os_version", "permission", "public_key")

# A phone that missed pushes gets them with its registration, and a permission that has changed is an event.
_RENEW = text("""
    WITH held AS (
        SELECT d.id, asked.*
          FROM unnest(CAST(:users AS text[]), CAST(:installations AS uuid[]), CAST(:providers AS text[]),
                      CAST(:tokens AS text[]), CAST(:environment AS text[]), CAST(:app_id AS text[]),
                      CAST(:locale AS text[]), CAST(:time_zone AS text[]), CAST(:app_version AS text[]),
                      CAST(:os_version AS text[]), CAST(:permission AS text[]), CAST(:public_key AS bytea[]))
               AS asked (user_id, installation_id, provider, token, environment, app_id, locale, time_zone,
                         app_version, os_version, permission, public_key)
          JOIN device_tokens d USING (user_id, installation_id, provider, token)
         WHERE d.active AND (asked.permission IS NULL OR coalesce(d.permission, asked.permission) = asked.permission)
           AND NOT EXISTS (SELECT FROM push_tasks t
                            WHERE t.installation_id = d.installation_id AND t.synced_at IS NULL
                              AND t.expires_at > clock_timestamp()
                              AND (t.state = 'unregistered'
                                   OR t.state = 'withdrawn' AND t.last_reason IN ('no_active_token', 'token_changed')))
         ORDER BY d.id
           FOR UPDATE OF d SKIP LOCKED
    )
    UPDATE device_tokens d
       SET registered_at = clock_timestamp(), last_seen_at = clock_timestamp(), sign_out_digest = NULL, sequence = NULL,
           environment = held.environment, app_id = held.app_id, locale = held.locale, time_zone = held.time_zone,
           app_version = held.app_version, os_version = held.os_version, permission = held.permission,
           public_key = held.public_key
      FROM held
     WHERE d.id = held.id
    RETURNING d.installation_id
""")
