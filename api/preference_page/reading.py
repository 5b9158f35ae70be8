"""Puts together what the page shows. What cannot be read of one row is left out, and the page opens all the same."""

from collections.abc import Iterable, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from api.preference_page.accept_language import chosen
from api.preference_page.nights import nights
from api.preference_page.view import Fast, Phone, View
from db import device_tokens, fasting_sessions, preferences
from db.engine import present_instant
from db.models import DeviceToken
from db.preference_sessions import OpenPage
from db.unreadable import word
from domain.devices import Permission
from domain.preferences import Preferences
from domain.push import Provider
from domain.reminders import upcoming
from domain.time_zones import known

_MOST_FASTS, _MOST_PHONES = 20, 50  # that are shown


async def view_of(db: AsyncSession, page: OpenPage, accept_language: str | None) -> View:
    """Read what somebody's page shows now."""
    wanted = await preferences.of_user(db, page.user_id)
    fasts = await fasting_sessions.active_of(db, page.user_id, _MOST_FASTS)
    rows = await device_tokens.active_for_user(db, page.user_id)
    latest = sorted(rows, key=lambda row: row.last_seen_at, reverse=True)[:_MOST_PHONES]
    now = await present_instant(db)
    phones = tuple(_phone(row) for row in latest)
    ahead = [(each, tuple(one for one in upcoming(each) if one.due_at > now)) for each in fasts]
    return View(
        locale=chosen(accept_language, next((row.locale for row in latest if row.locale), None)),
        csrf_token=page.csrf_token,
        now=now,
        time_zone=_zone(phones, wanted),
        preferences=wanted,
        fasts=tuple(Fast(each.session_id, each.ends_at, told, each.follows_preferences) for each, told in ahead),
        phones=phones,
        nights=nights(wanted.quiet_hours, _zones(rows), now),
    )


def _zones(rows: Sequence[DeviceToken]) -> Iterable[str | None]:
    return (row.time_zone for row in rows)


def _phone(row: DeviceToken) -> Phone:
    return Phone(
        installation_id=row.installation_id,
        provider=Provider(row.provider),  # readable: see `active_for_user`
        app_version=row.app_version,
        os_version=row.os_version,
        permission=None if row.permission is None else word(Permission, row.permission, "device_tokens.permission"),
        time_zone=None if row.time_zone is None else known(row.time_zone),
        last_seen_at=row.last_seen_at,
    )


def _zone(phones: Sequence[Phone], wanted: Preferences) -> str:
    """Say by whose clock moments are told that belong to no phone."""
    quiet = wanted.quiet_hours
    named = [*(each.time_zone for each in phones), known(quiet.time_zone) if quiet and quiet.time_zone else None]
    return next((each for each in named if each is not None), "UTC")
