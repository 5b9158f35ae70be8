"""A timeline in words: chooses the sentences of `domain/sentences.py` and fills them in."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.devices import Permission, ReportedPermission
from domain.kinds import Kind
from domain.preferences import QuietHours
from domain.preferences import in_words as zone_in_words
from domain.push import Provider, TaskState
from domain.reasons import PROVIDERS, TOKEN_ERRORS, UNCALLED, is_unclear, why, why_not, why_so, why_then
from domain.sentences import PAST, PERMISSION_TOLD, PRESENT, SHOWS, STANDINGS, Past, Present
from domain.timeline import Event, Happening, WaitsFor

_PHONES = {Provider.APNS: "iPhone", Provider.FCM: "Android phone", None: "phone"}
_NO_PHONE = "no phone of theirs has an active token."
_ON_TIME = timedelta(seconds=1)


def in_words(what: Happening) -> str:
    """Say what happened, or what a push waits for."""
    choose = _CHOSEN.get(what.event)
    return _filled(PAST[what.event] if choose is None else choose(what), what)


def now_quiet(hours: QuietHours | None) -> str:
    """Say what the person's quiet hours are now, after a push that they withheld: they may have changed."""
    if hours is None:
        return Past.NO_QUIET_NOW
    where = zone_in_words(hours.time_zone) if hours.time_zone else "by each phone's clock"
    return Past.QUIET_NOW.format(starts=hours.starts, ends=hours.ends, where=where)


def shows(reported: ReportedPermission | None) -> str:
    """Say what a phone does with a push, by its reported permission; nothing if it shows it."""
    return "" if reported is None else SHOWS[reported.permission].format(permission_told_at=_written(reported.at))


def standing_in_words(
    state: TaskState, reason: str | None, provider: Provider | None = None, reported: ReportedPermission | None = None
) -> str:
    """Give the state of a test push on a phone, which may not show it, by its `reported` permission."""
    if state is TaskState.ACCEPTED and reason is not None:
        return f"Accepted: {why(reason, provider)}"
    stands = STANDINGS[state].format(because="." if reason is None else f": {why_so(state, reason, provider)}")
    return stands + (shows(reported) if state in {TaskState.PENDING, TaskState.ACCEPTED} else "")


def duration(length: timedelta) -> str:
    """Write how late something is, to the second."""
    minutes, seconds = divmod(round(length.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number and not (hours and unit == "s")) or "0 s"


def _waits(what: Happening) -> str:
    """Choose the sentence for what an unsettled push waits for."""
    waits, reported = WaitsFor(what.detail["waits_for"]), what.detail
    parts: dict[str, str] = {
        "head": _head(what, waits),
        "until": Present.EXPIRES,
        "then": Present.THEN_REDRIVE if reported["is_dead"] else Present.THEN_SENT,
        "next": _next(what),
        "rest": Present.REST if _has(what, "route_until") else "",
        "trial": "" if _has(what, "route_until") else Present.ONE_CALL,
        "temporal": Present.OWED if _has(what, "owed_since") else Present.SILENT,
    }
    sentence = PRESENT[waits]
    if waits is WaitsFor.REDRIVE and what.reason in TOKEN_ERRORS:
        sentence = Present.CUTOFF_OVER
    elif waits is WaitsFor.RETRY and what.reason == "brake_engaged":
        sentence = Present.ROUTE_RESUMED
    if waits is WaitsFor.ROUTE and not _has(what, "route_until"):
        parts["next"] = ""
    for name, part in parts.items():
        sentence = sentence.replace(f"{{{name}}}", part)
    return sentence


def _head(what: Happening, waits: WaitsFor) -> str:
    if what.detail["is_dead"]:
        return Present.DEAD
    if not _is_past(what, "due_at"):
        return Present.DUE
    return Present.ACCEPTED_JUST_NOW if waits is WaitsFor.DUE else Present.LATE


def _next(what: Happening) -> str:
    if _has(what, "next_attempt_at"):
        return Present.NEXT
    rests_until_then = _has(what, "route_until") and _instant(what, "route_until") < _instant(what, "expires_at")
    return Present.AFTER_REST if rests_until_then else Present.NO_NEXT


def _unopened(what: Happening) -> str:
    return Past.UNOPENED_EXPIRED if _is_past(what, "expires_at") else PAST[Event.UNOPENED]


def _attempted(what: Happening) -> str:
    if what.reason in UNCALLED:
        return Past.NOT_CALLED
    if what.reason == "worker_lost":
        return Past.CALL_LOST
    return (Past.CALLED if _has(what, "outcome") else Past.CALLING) + _silence(what)


def _silence(what: Happening) -> str:
    """Say why the push was without a sound, if it was."""
    return {"quiet_hours": Past.SILENT_AT_NIGHT, "sounded_lately": Past.SILENT_SO_SOON}.get(
        what.detail.get("silent_because") or "", ""
    )


def _answered(what: Happening) -> str:
    outcome = what.detail["outcome"]
    if outcome == "accepted":
        return Past.TOOK_IT
    again = Past.TRIED_AGAIN if what.detail.get("is_tried_again") else ""
    again = Past.ASKED_FOR_PATIENCE if _has(what, "asked_until") else again
    if what.reason in UNCALLED:
        return Past.NO_CALL + again
    if what.reason in TOKEN_ERRORS and what.detail.get("cutoff_at"):
        return Past.REFUSED_IN_A_MASS
    return Past.ANSWERED + (Past.UNCLEAR if is_unclear(outcome, what.reason) else "") + again


def _accepted(what: Happening) -> str:
    if what.reason == "validated":
        return Past.VALIDATED
    late = _late(what)
    if what.kind is Kind.TEST or late is None:
        when, cause = "", ""
    elif late < _ON_TIME:
        when, cause = Past.ON_TIME, ""
    else:
        when, cause = Past.LATE, _cause(what, late)
    permission = what.detail.get("permission")
    shown = (SHOWS[Permission(permission)] if permission else "") or Past.SETTINGS_DECIDE
    return Past.ACCEPTED.replace("{when}", when).replace("{cause}", cause).replace("{shows}", shown)


def _cause(what: Happening, late: timedelta) -> str:
    """Say why a push was late, as far as it is on record."""
    if what.detail.get("is_redriven"):
        return Past.REDRIVEN_LATE
    held_up_by = what.detail.get("held_up_by")
    if held_up_by:
        return {"brake_engaged": Past.HELD_UP_BY_CUTOFF, "worker_lost": Past.HELD_UP_BY_LOSS}.get(
            held_up_by, Past.HELD_UP
        )
    if _has(what, "created_at") and _instant(what, "created_at") >= _instant(what, "late_from") + _ON_TIME:
        return Past.MESSAGE_PROCESSED_LATE if what.kind is Kind.MESSAGE else Past.PROCESSED_LATE
    if _took(what) >= max(_ON_TIME, late / 2):  # else somebody else's part is the greater one
        return Past.ANSWERED_LATE
    return Past.NOTHING_HELD_IT_UP


def _rejected(what: Happening) -> str:
    if what.reason in UNCALLED:
        return Past.NOT_SENT
    if what.detail.get("is_kept"):
        return Past.REFUSED_BUT_KEPT
    return PAST[what.event] + (Past.SUSPECT_KEPT if what.detail.get("is_suspect") else "")


def _expired(what: Happening) -> str:
    is_alone = what.reason in {None, "too_late", "expired"}
    return PAST[Event.EXPIRED] + ("" if is_alone else Past.BEFORE_THAT)


def _dead(what: Happening) -> str:
    expired = _is_past(what, "expires_at")
    at_its_end = _has(what, "ended_at") and _instant(what, "ended_at") >= _instant(what, "expires_at")
    if what.reason in TOKEN_ERRORS:
        died = Past.DIED_OF_CUTOFF
    elif what.reason == "brake_engaged":
        died = Past.DIED_BEHIND_CUTOFF
    else:
        died = Past.DIED_EXPIRED if at_its_end else Past.DIED
    refused = what.detail.get("redrive_refused")
    if expired or "redrive_refused" not in what.detail:  # too late, or redriven afterwards
        return died
    if refused == "brake_engaged":
        return died + Past.RESUME_FIRST
    return died + (Past.NOT_REDRIVABLE if refused else Past.REDRIVABLE)


def _redriven(what: Happening) -> str:
    return Past.REDRIVEN_AFTER_CUTOFF if what.reason in TOKEN_ERRORS else PAST[Event.REDRIVEN]


def _fast_started(what: Happening) -> str:
    if not what.detail["changes"]:
        return Past.STARTED + _reminders(what)
    is_moved = _instant(what, "first_ends_at") != _instant(what, "ends_at")
    return Past.STARTED + ("" if is_moved else _reminders_of_then(what))


def _goal_moved(what: Happening) -> str:
    if what.detail["changes"] == 1:
        return Past.MOVED + _reminders(what)
    return Past.MOVED + Past.CHANGED + _present_reminders(what)


def _reminders(what: Happening) -> str:
    """List the reminders, which are what they were at that time, and those that it was too late for."""
    if not _minutes(what):
        return Past.NO_REMINDERS
    return Past.REMINDERS + (Past.SKIPPED if _due_when_set(what) else "")


def _reminders_of_then(what: Happening) -> str:
    """List the reminders that a fast was started with, as far as they are known, and those that it has now."""
    first = what.detail["first_reminder_minutes"]
    if first is not None and set(first) != set(_minutes(what)):
        return Past.REMINDERS_FIRST + _present_reminders(what)
    is_certain = what.detail["changes"] == 1  # for the goal is where it was
    return (Past.REMINDERS_CHANGED if is_certain else "") + _present_reminders(what)


def _present_reminders(what: Happening) -> str:
    """List the reminders as they are now; one that was due when they were set may have been sent before that."""
    if not _minutes(what):
        return Past.NO_REMINDERS_NOW
    return Past.REMINDERS_NOW + (Past.SKIPPED_UNLESS_SENT if _due_when_set(what) else "")


def _minutes(what: Happening) -> list[int]:
    return sorted(what.detail["reminder_minutes"], reverse=True)


def _due_when_set(what: Happening) -> list[int]:
    ends_at, set_at = _instant(what, "ends_at"), _instant(what, "scheduled_at")
    late: list[int] = what.detail["late_minutes"]
    return [each for each in _minutes(what) if each in late or ends_at - timedelta(minutes=each) <= set_at]


def _permission_told(what: Happening) -> str:
    return PERMISSION_TOLD.get(what.reason) or PAST[Event.OTHER]


def _signed_out(what: Happening) -> str:
    return PAST[Event.SIGNED_OUT] if what.reason is None else Past.CROWDED_OUT


_CHOSEN: Mapping[Event, Callable[[Happening], str]] = {
    Event.WAITS: _waits,
    Event.SIGNED_OUT: _signed_out,
    Event.PERMISSION_TOLD: _permission_told,
    Event.UNOPENED: _unopened,
    Event.ATTEMPTED: _attempted,
    Event.ANSWERED: _answered,
    Event.ACCEPTED: _accepted,
    Event.REJECTED: _rejected,
    Event.UNREGISTERED: _rejected,
    Event.EXPIRED: _expired,
    Event.DEAD: _dead,
    Event.REDRIVEN: _redriven,
    Event.FAST_STARTED: _fast_started,
    Event.GOAL_MOVED: _goal_moved,
}


def _filled(sentence: str, what: Happening) -> str:
    """Fill a sentence in."""
    provider, push, detail = PROVIDERS[what.provider], _push(what), what.detail
    latency = detail.get("latency_ms")
    after = "" if latency is None else f" after {latency} ms"
    meaning = _why(what)
    values: dict[str, object] = {
        **{name: value for name, value in detail.items() if not isinstance(value, dict | list)},
        **{name: _at(what, name) for name in detail if name.endswith(_INSTANTS) and _has(what, name)},
        "push": push,
        "Push": _capital(push),
        "phone": _phone(what),
        "phones": f"{_PHONES[what.provider]}s",
        "provider": provider,
        "Provider": _capital(provider),
        "reason": what.reason,
        "why": meaning,
        "Why": _capital(meaning),
        "to": "" if what.installation_id is None else f" for {_phone(what)}",
        "whom": "any phone" if what.installation_id is None else _phone(what),
        "after": after,
        "late": duration(_late(what) or timedelta()),
        "took": duration(_took(what)),
        "engaged": f" at {_at(what, 'cutoff_at')}" if _has(what, "cutoff_at") else "",
        "refusal": _refusal(what),
        "dry": Past.DRY if detail.get("validate_only") else "",
        "phones_count": _count(len(detail.get("installations", ()))),
        **(_reminder_lists(what) if what.event in {Event.FAST_STARTED, Event.GOAL_MOVED} else {}),
    }
    return sentence.format_map(values)


_INSTANTS = ("_at", "_since", "_until")


def _why(what: Happening) -> str:
    if what.event is Event.WITHHELD and what.installation_id is None and what.reason == "no_active_token":
        return _NO_PHONE
    if what.event is Event.ACCEPTED and what.reason is None:
        return why_then(what.detail.get("held_up_by"), what.provider)
    return why(what.reason, what.provider)


def _refusal(what: Happening) -> str:
    reason = what.detail.get("redrive_refused") or what.detail.get("refused")
    return _NO_PHONE if what.installation_id is None and reason == "no_active_token" else why_not(reason, what.provider)


def _push(what: Happening) -> str:
    match what.kind:
        case Kind.REMINDER if what.reminder_minutes == 0:
            return "the reminder at the end"
        case Kind.REMINDER:
            minutes = "1 minute" if what.reminder_minutes == 1 else f"{what.reminder_minutes} minutes"
            return f"the reminder {minutes} before the end"
        case Kind.MESSAGE:
            return "the message"
        case Kind.TEST | None:
            return "the test push"


def _phone(what: Happening) -> str:
    """Name a phone by the first characters of its installation id."""
    return f"the {_PHONES[what.provider]} {str(what.installation_id)[:8]}"


def _late(what: Happening) -> timedelta | None:
    seconds = what.detail.get("late_seconds")
    return None if seconds is None else timedelta(seconds=seconds)


def _took(what: Happening) -> timedelta:
    return timedelta(milliseconds=what.detail.get("took_ms") or 0)


def _reminder_lists(what: Happening) -> Mapping[str, str]:
    lists = {
        "minutes": _minutes(what),
        "skipped": _due_when_set(what),
        "first_minutes": sorted(what.detail["first_reminder_minutes"] or (), reverse=True),
    }
    return {name: ", ".join(map(str, minutes)) or "none" for name, minutes in lists.items()}


def _count(phones: int) -> str:
    return f"{phones} {'phone' if phones == 1 else 'phones'}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _has(what: Happening, field: str) -> bool:
    return what.detail.get(field) is not None


def _is_past(what: Happening, field: str) -> bool:
    return _has(what, field) and _instant(what, field) <= what.now


def _instant(what: Happening, field: str) -> datetime:
    """Read an instant of the detail, which PostgreSQL wrote as JSON."""
    value: Any = what.detail[field]
    return datetime.fromisoformat(value).astimezone(UTC)


def _at(what: Happening, field: str) -> str:
    return _written(_instant(what, field))


def _written(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
