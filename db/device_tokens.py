"""Device tokens: who owns which, and what happened to each.

The unique indexes hold the invariant. Every change of ownership takes advisory locks on token and installation, in a
fixed order, so that concurrent registrations queue instead of failing. A registration also locks its user, so that two
are counted one after the other. Rows are locked in the order of their ids, here and by the last check: no deadlocks.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, func, insert, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from db.engine import among, hold_names, once_committed
from db.models.people import DeviceToken, DeviceTokenEvent, SpentTicket
from db.unreadable import addresses, route_of
from domain.devices import InstallationStanding, Permission
from domain.naming import digest
from domain.problems import Conflict
from domain.push import Environment, Provider, Route
from telemetry import metrics

TOO_MANY = "too_many_installations"  # the reason of an event, beside those of providers
PERMISSION_TOLD = "permission_told"  # an event, with the permission as its reason
TICKETS_REMEMBERED = timedelta(hours=1)  # far longer than a server, or a proxy in front of it, keeps a request


@dataclass(frozen=True, slots=True)
class Registration:
    """What an app reports when it registers."""

    provider: Provider
    token: str
    environment: Environment
    app_id: str | None = None
    locale: str | None = None
    time_zone: str | None = None
    app_version: str | None = None
    os_version: str | None = None
    permission: str | None = None
    sign_out_digest: bytes | None = None  # SHA-256 of the ticket that may end this registration
    sequence: int | None = None  # grows with each registration with this digest
    former_ticket: str | None = field(default=None, repr=False)  # of the previous user
    public_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class DeadToken:
    """A token that its provider called dead, as it was registered then."""

    device_id: UUID
    token: str = field(repr=False)
    since: datetime
    reason: str


def locks_of(user_id: str, installation_id: UUID, new: Registration) -> tuple[str, ...]:
    """Name the locks of a registration: installation, token, and the number of its user's installations."""
    return f"installation/{installation_id}", f"token/{new.provider}/{new.token}", f"user/{user_id}"


async def register(
    db: AsyncSession, user_id: str, installation_id: UUID, new: Registration, *, most: int | None = None
) -> DeviceToken:
    """Make the token active for this user and installation only.

    If the user then has more than `most` installations, those not seen for longest are signed out. Raises Conflict if
    another user is signed in there and neither their token nor their ticket is given, if the ticket of this
    registration was used (then it is older than that sign-out), and if one with a higher `sequence` came before it.
    """
    await hold_names(db, locks_of(user_id, installation_id, new))
    await _spend_tickets(db, installation_id, new)
    latest = await _latest_sequence(db, user_id, installation_id, new)
    elsewhere = and_(
        DeviceToken.provider == new.provider,
        func.md5(DeviceToken.token) == func.md5(new.token),  # as in the indexes
        DeviceToken.token == new.token,
    )
    same_row = and_(DeviceToken.user_id == user_id, DeviceToken.installation_id == installation_id, elsewhere)
    others_here = and_(DeviceToken.installation_id == installation_id, DeviceToken.user_id != user_id)
    touched = or_(and_(DeviceToken.active, or_(elsewhere, DeviceToken.installation_id == installation_id)), same_row)
    others = and_(DeviceToken.user_id == user_id, DeviceToken.active, ~touched)
    crowded_out = among(DeviceToken.id, await _beyond(db, others, most))
    await db.execute(select(DeviceToken.id).where(or_(touched, crowded_out)).order_by(DeviceToken.id).with_for_update())
    await _check_may_move(db, and_(others_here, DeviceToken.active), new)
    news = await _permission_news(db, user_id, installation_id, new.permission)
    await _deactivate(db, and_(or_(elsewhere, others_here), ~same_row), "transferred", taken_by=user_id)
    await _deactivate(db, and_(DeviceToken.installation_id == installation_id, ~same_row), "rotated")
    await _deactivate(db, and_(others, crowded_out), "signed_out", detail=TOO_MANY)

    now = func.clock_timestamp()
    row = await db.scalar(select(DeviceToken).where(same_row))
    event = None
    if row is None:
        row = DeviceToken(user_id=user_id, installation_id=installation_id, provider=new.provider, token=new.token)
        event = "registered"
        db.add(row)
    elif not row.active:
        event = "reactivated"
    row.active, row.inactive_reason = True, None
    row.registered_at = row.last_seen_at = now
    row.environment, row.app_id, row.app_version = new.environment, new.app_id, new.app_version
    row.locale, row.time_zone, row.public_key = new.locale, new.time_zone, new.public_key
    row.os_version, row.permission, row.sign_out_digest = new.os_version, new.permission, new.sign_out_digest
    row.sequence = latest if new.sequence is None else new.sequence
    await db.flush()
    await db.refresh(row)
    if event:
        await note(db, [row.id], event, None)
    if news:
        await note(db, [row.id], PERMISSION_TOLD, news)
    return row


async def sign_out(db: AsyncSession, user_id: str, installation_id: UUID) -> None:
    """Sign this installation out. If another user has since registered the token, their registration is kept.

    The ticket of its latest registration counts as used: one that names it and has not been processed yet is refused.
    """
    await hold_names(db, [f"installation/{installation_id}"])
    mine = and_(DeviceToken.user_id == user_id, DeviceToken.installation_id == installation_id)
    latest = select(DeviceToken.sign_out_digest).where(mine).order_by(DeviceToken.registered_at.desc()).limit(1)
    if ticket := await db.scalar(latest):
        await _spend(db, installation_id, ticket)
    await _deactivate(db, mine, "signed_out")


async def hold_registrations(db: AsyncSession, user_id: str) -> None:
    """Wait for a person's registrations that are under way, and let later ones wait until the transaction ends."""
    await hold_names(db, [f"user/{user_id}"])


async def sign_out_everywhere(db: AsyncSession, user_id: str, reason: str) -> None:
    """Sign all of a person's installations out."""
    await _deactivate(db, DeviceToken.user_id == user_id, "signed_out", detail=reason)


async def sign_out_by_ticket(db: AsyncSession, installation_id: UUID, ticket: str) -> None:
    """Sign out the registration that named this ticket's digest, whichever user's it is; a later one names another.

    A registration that names the ticket and has not been processed yet will be refused.
    """
    await hold_names(db, [f"installation/{installation_id}"])
    named = and_(DeviceToken.installation_id == installation_id, DeviceToken.sign_out_digest == digest(ticket))
    await _deactivate(db, named, "signed_out")
    await _spend(db, installation_id, digest(ticket))


async def invalidate_all(db: AsyncSession, dead: Collection[DeadToken]) -> Sequence[UUID]:
    """Deactivate tokens that their providers called dead; gives the rows, without those registered again since."""
    by_reason: dict[str, list[DeadToken]] = defaultdict(list)
    for each in dead:
        by_reason[each.reason].append(each)
    if len(by_reason) > 1:
        await db.execute(select(DeviceToken.id).where(_are(dead)).order_by(DeviceToken.id).with_for_update())
    return [
        device_id
        for reason, those in by_reason.items()
        for device_id in await _deactivate(db, _are(those), "invalidated", detail=reason)
    ]


async def owned_by(
    db: AsyncSession, user_id: str, after: tuple[datetime, UUID] | None, limit: int
) -> Sequence[DeviceToken]:
    """List a user's rows, the last seen first."""
    query = (
        select(DeviceToken)
        .where(DeviceToken.user_id == user_id, _KNOWN)
        .order_by(DeviceToken.last_seen_at.desc(), DeviceToken.id.desc())
        .limit(limit)
    )
    if after:
        query = query.where(tuple_(DeviceToken.last_seen_at, DeviceToken.id) < after)
    return (await db.scalars(query)).all()


async def active_for_user(db: AsyncSession, user_id: str) -> Sequence[DeviceToken]:
    """List the tokens that may be pushed to."""
    query = select(DeviceToken).where(DeviceToken.user_id == user_id, DeviceToken.active).order_by(DeviceToken.id)
    return addresses(await db.scalars(query))


async def time_zones(db: AsyncSession, user_ids: Collection[str]) -> dict[str, list[str | None]]:
    """Give the time zones of these users' active tokens; None for a phone that reported none."""
    query = select(DeviceToken.user_id, DeviceToken.time_zone).where(
        DeviceToken.active, among(DeviceToken.user_id, user_ids)
    )
    by_user: dict[str, list[str | None]] = defaultdict(list)
    for row in await db.execute(query):
        by_user[row.user_id].append(row.time_zone)
    return by_user


async def active_since(db: AsyncSession, user_id: str, instant: datetime) -> Sequence[DeviceToken]:
    """List the tokens that may be pushed to, of installations that already had one at that instant.

    The first event since then decides: one that was registered had none. `registered_at` grows with each app start.
    """
    row = aliased(DeviceToken)
    first = (
        select(DeviceTokenEvent.event)
        .join(row, row.id == DeviceTokenEvent.device_id)
        .where(row.user_id == DeviceToken.user_id, row.installation_id == DeviceToken.installation_id)
        .where(DeviceTokenEvent.at > instant)
        .order_by(DeviceTokenEvent.id)
        .limit(1)
        .scalar_subquery()
    )
    came_later = func.coalesce(first, "").in_(("registered", "reactivated"))
    query = select(DeviceToken).where(DeviceToken.user_id == user_id, DeviceToken.active, ~came_later)
    return addresses(await db.scalars(query.order_by(DeviceToken.id)))


@dataclass(frozen=True, slots=True)
class ActiveToken:
    """A token that may be pushed to, as the last check needs it."""

    id: UUID
    user_id: str
    installation_id: UUID
    provider: Provider
    app_id: str | None
    environment: Environment
    token: str = field(repr=False)
    locale: str | None
    time_zone: str | None
    public_key: bytes | None

    @property
    def route(self) -> Route:
        """The way to it."""
        return Route(self.provider, self.app_id, self.environment)


async def active_at(db: AsyncSession, installation_ids: Collection[UUID]) -> dict[UUID, ActiveToken]:
    """Read the active tokens of these installations."""
    return _active(await db.execute(_active_of(installation_ids)))


async def active_shared(db: AsyncSession, installation_ids: Collection[UUID]) -> dict[UUID, ActiveToken]:
    """Read the active tokens of these installations, held unchanged until the transaction ends."""
    tokens = await _held(db, installation_ids)
    missing = [each for each in installation_ids if each not in tokens]
    if missing:  # rotated while we waited for the row, or being registered: the next snapshot has it
        await await_registrations(db, missing)
        tokens |= await _held(db, missing)
    return tokens


async def await_registrations(db: AsyncSession, installation_ids: Collection[UUID]) -> None:
    """Wait for registrations and sign-outs of these installations, and hold them off until the transaction ends."""
    await db.execute(_AWAIT_REGISTRATIONS, {"installation_ids": list(installation_ids)})


async def _held(db: AsyncSession, installation_ids: Collection[UUID]) -> dict[UUID, ActiveToken]:
    query = _active_of(installation_ids).order_by(DeviceToken.id).with_for_update(read=True)
    return _active(await db.execute(query))


def _active_of(installation_ids: Collection[UUID]) -> Select[*tuple[Any, ...]]:
    """Select what `ActiveToken` has: thousands are read at one instant, and rows of the ORM cost five times that."""
    return select(*_ACTIVE_TOKEN).where(DeviceToken.active, among(DeviceToken.installation_id, installation_ids))


def _active(rows: Iterable[Any]) -> dict[UUID, ActiveToken]:
    found: dict[UUID, ActiveToken] = {}
    for row in rows:
        if (route := route_of(row, "device_tokens")) is not None:
            fields: list[Any] = [*row[:3], route.provider, row.app_id, route.environment, *row[6:]]
            found[row.installation_id] = ActiveToken(*fields)
    return found


async def _spend_tickets(db: AsyncSession, installation_id: UUID, new: Registration) -> None:
    own, former = new.sign_out_digest, None if new.former_ticket is None else digest(new.former_ticket)
    if own is not None and await _is_spent(db, installation_id, own):
        raise Conflict(
            "ticket-spent", "The ticket of this registration has signed it out already. Sign in with a new ticket."
        )
    if former not in (None, own):
        await _spend(db, installation_id, former)


async def _spend(db: AsyncSession, installation_id: UUID, ticket: bytes) -> None:
    """Remember that the sign-out ticket with this digest was used: a registration that names it is older."""
    expires_at = func.clock_timestamp() + TICKETS_REMEMBERED
    added = upsert(SpentTicket).values(installation_id=installation_id, digest=ticket, expires_at=expires_at)
    key = [SpentTicket.installation_id, SpentTicket.digest]
    await db.execute(added.on_conflict_do_update(index_elements=key, set_={"expires_at": added.excluded.expires_at}))


async def _is_spent(db: AsyncSession, installation_id: UUID, ticket: bytes) -> bool:
    query = select(SpentTicket.digest).where(
        SpentTicket.installation_id == installation_id,
        SpentTicket.digest == ticket,
        SpentTicket.expires_at > func.clock_timestamp(),
    )
    return await db.scalar(query) is not None


async def _latest_sequence(db: AsyncSession, user_id: str, installation_id: UUID, new: Registration) -> int | None:
    """Give the highest number of the registrations with this ticket; raises Conflict if the new one has a lower one."""
    if new.sign_out_digest is None:
        return None
    same_sign_in = and_(
        DeviceToken.user_id == user_id,
        DeviceToken.installation_id == installation_id,
        DeviceToken.sign_out_digest == new.sign_out_digest,
    )
    latest = await db.scalar(select(func.max(DeviceToken.sequence)).where(same_sign_in))
    if latest is not None and new.sequence is not None and new.sequence < latest:
        raise Conflict(
            "registration-outdated", "A later registration of this sign-in was stored already. It stays as it is."
        )
    return latest


async def _check_may_move(db: AsyncSession, signed_in: ColumnElement[bool], new: Registration) -> None:
    former = None if new.former_ticket is None else digest(new.former_ticket)
    for row in await db.scalars(select(DeviceToken).where(signed_in, DeviceToken.sign_out_digest.is_not(None))):
        if (row.provider, row.token) != (new.provider, new.token) and row.sign_out_digest != former:
            raise Conflict(
                "installation-taken",
                "Somebody else is signed in here. Register with their ticket, or under a new installation id.",
            )


async def _permission_news(db: AsyncSession, user_id: str, installation_id: UUID, permission: str | None) -> str | None:
    """Give the permission if it differs from the last one that this app reported; before that, `granted` counts."""
    if permission is None:
        return None
    mine = and_(DeviceToken.user_id == user_id, DeviceToken.installation_id == installation_id)
    latest = select(DeviceToken.permission).where(mine).order_by(DeviceToken.registered_at.desc()).limit(1)
    return None if permission == (await db.scalar(latest) or Permission.GRANTED) else permission


async def _beyond(db: AsyncSession, others: ColumnElement[bool], most: int | None) -> Sequence[UUID]:
    """Find the rows beyond the limit once one more is added; the user's lock keeps their number until the commit."""
    if most is None:
        return []
    latest_first = (DeviceToken.last_seen_at.desc(), DeviceToken.id.desc())
    return (await db.scalars(select(DeviceToken.id).where(others).order_by(*latest_first).offset(most - 1))).all()


def _are(dead: Collection[DeadToken]) -> ColumnElement[bool]:
    """Compare, so that a row with a newer registration stays as it is."""
    columns = zip(*((each.device_id, each.token, each.since) for each in dead), strict=True)
    named = {name: list(values) for name, values in zip(("ids", "tokens", "sinces"), columns, strict=True)}
    return and_(among(DeviceToken.id, named["ids"]), _DEAD.bindparams(**named))


async def _deactivate(
    db: AsyncSession, which: ColumnElement[bool], reason: str, *, detail: str | None = None, taken_by: str | None = None
) -> Sequence[UUID]:
    columns = select(DeviceToken.id, DeviceToken.provider, DeviceToken.user_id)
    rows = (await db.execute(columns.where(DeviceToken.active, which).order_by(DeviceToken.id).with_for_update())).all()
    ids = [row.id for row in rows]
    if ids:
        change = update(DeviceToken).where(among(DeviceToken.id, ids)).values(active=False, inactive_reason=reason)
        await db.execute(change)
        await note(db, ids, reason, detail, {row.id: taken_by for row in rows if row.user_id != taken_by})
        once_committed(db, lambda: _count([row.provider for row in rows], reason, detail))
    return ids


def _count(providers: Sequence[str], cause: str, reason: str | None) -> None:
    for provider in providers:
        metrics.device_tokens_deactivated.labels(provider, cause, metrics.reason(reason)).inc()


async def note(
    db: AsyncSession,
    device_ids: Sequence[UUID],
    event: str,
    reason: str | None,
    taken_by: Mapping[UUID, str | None] | None = None,
) -> None:
    """Record what happened to device tokens; `taken_by` names who has each now."""
    takers = taken_by or {}
    rows = [
        {"device_id": device_id, "event": event, "reason": reason, "taken_by": takers.get(device_id)}
        for device_id in device_ids
    ]
    await db.execute(insert(DeviceTokenEvent), rows)


_ACTIVE_TOKEN = (
    *(DeviceToken.id, DeviceToken.user_id, DeviceToken.installation_id),
    *(DeviceToken.provider, DeviceToken.app_id, DeviceToken.environment),
    *(DeviceToken.token, DeviceToken.locale, DeviceToken.time_zone, DeviceToken.public_key),
)
_KNOWN = and_(DeviceToken.provider.in_(tuple(Provider)), DeviceToken.environment.in_(tuple(Environment)))


_DEAD = text("""
    EXISTS (SELECT FROM unnest(CAST(:ids AS uuid[]), CAST(:tokens AS text[]), CAST(:sinces AS timestamptz[]))
                        AS dead (id, token, since)
             WHERE dead.id = device_tokens.id AND dead.token = device_tokens.token
               AND device_tokens.registered_at <= dead.since)
""")


_AWAIT_REGISTRATIONS = text("""
    SELECT pg_advisory_xact_lock_shared(hashtextextended('installation/' || id, 0))
      FROM (SELECT DISTINCT id FROM unnest(CAST(:installation_ids AS uuid[])) AS asked (id) ORDER BY id) AS each
""")


async def standing(db: AsyncSession, user_id: str, installation_id: UUID) -> InstallationStanding:
    """Give the state of an installation for a user."""
    state, _ = await standing_and_app(db, user_id, installation_id)
    return state


async def standing_and_app(
    db: AsyncSession, user_id: str, installation_id: UUID
) -> tuple[InstallationStanding, str | None]:
    """Give the state of an installation for a user, and the app that it registered for last."""
    query = (
        select(DeviceToken.user_id, DeviceToken.active, DeviceToken.inactive_reason, DeviceToken.app_id)
        .where(DeviceToken.installation_id == installation_id)
        .order_by(DeviceToken.active.desc(), DeviceToken.last_seen_at.desc(), DeviceToken.id)
    )
    rows = (await db.execute(query)).all()
    mine = next((row for row in rows if row.user_id == user_id), None)
    if mine is None:
        return InstallationStanding.FOREIGN if rows else InstallationStanding.UNKNOWN, None
    if mine.active:
        return InstallationStanding.ACTIVE, mine.app_id
    is_dead = not rows[0].active and mine.inactive_reason == "invalidated"
    return InstallationStanding.INVALIDATED if is_dead else InstallationStanding.INACTIVE, mine.app_id
