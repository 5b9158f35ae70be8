"""What the preference page shows, put together by its routes.

What a form sends is in `form`, how the page looks in `rendering`. Addresses and field names that both sides agree on
stand here, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from api.preference_page.nights import Night
from domain.devices import Permission
from domain.preferences import Preferences
from domain.push import Provider
from domain.reminders import Reminder

PATH = "/preferences/"  # GET shows the page; POST saves it
STOP_PATH = "/preferences/stop"  # POST: one of `Stop` in the field `what`
SIGN_OUT_PATH = "/preferences/sign-out"  # POST
STYLE_PATH = "/preferences/style.css"  # GET; its query changes with it, so it may be kept for ever
CSRF_FIELD = "csrf_token"  # of each form
REV_FIELD = "rev"  # of the saving form: the revision it was made from, for `If-Match`
BASE_FIELD = "base"  # of the saving form: what it was filled with, so that a conflict keeps what was typed
STOP_FIELD = "what"


class Stop(StrEnum):
    """What one button stops, whatever else the page says."""

    REMINDERS = "reminders"
    MESSAGES = "messages"


class Notice(StrEnum):
    """What became of the last request; problems of single fields are told beside them."""

    SAVED = "saved"
    REMINDERS_STOPPED = "reminders_stopped"
    MESSAGES_STOPPED = "messages_stopped"
    CONFLICT = "conflict"  # the preferences were changed elsewhere meanwhile, so nothing was saved


@dataclass(frozen=True, slots=True)
class Typed:
    """What somebody typed, as it came: to be judged, and shown again where it cannot be saved."""

    reminders: bool
    reminder_minutes: tuple[str, ...]  # of the fields that are not empty
    messages: bool
    reminder_preview: str  # a Preview, if nobody tampered with it; likewise the others that are chosen
    message_preview: str
    quiet: bool  # whether there are quiet hours
    starts: str  # 22:00
    ends: str
    time_zone: str  # an IANA name; empty: wherever each phone is
    mode: str  # a QuietMode


@dataclass(frozen=True, slots=True)
class Fast:
    """A fast that is running or planned."""

    session_id: UUID
    ends_at: datetime
    reminders: tuple[Reminder, ...]  # those whose moment lies ahead, in order of time
    follows_preferences: bool = True  # else the app gave it reminder minutes of its own


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone that is signed in."""

    installation_id: UUID
    provider: Provider
    app_version: str | None
    os_version: str | None
    permission: Permission | None  # None: its app did not tell
    time_zone: str | None  # IANA name, as its app told when it registered last
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the page shows."""

    locale: str  # BCP 47, chosen by the server; a language that the page does not speak is shown in English
    csrf_token: str
    now: datetime
    time_zone: str  # IANA name: in which moments are told that belong to no phone, such as a fast's end
    preferences: Preferences  # the stored ones, with `rev` and the quiet hours' fallback zone
    fasts: tuple[Fast, ...] = ()  # the next to end first
    phones: tuple[Phone, ...] = ()  # the one seen last first
    nights: tuple[Night, ...] = ()  # of `nights.nights`
    notice: Notice | None = None
    problems: Mapping[str, str] = field(default_factory=dict)  # field of `Typed` -> key of a message, both of `form`
    typed: Typed | None = None  # shown instead of the stored preferences
