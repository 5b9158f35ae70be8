"""A timeline in words: one sentence or two for each event, which a support person can read out."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.kinds import Kind
from domain.push import Provider
from domain.quiet_hours import QuietHours
from domain.reasons import UNCALLED, why
from domain.timeline import Event, Happening

_PHONES = {Provider.APNS: "iPhone", Provider.FCM: "Android phone", None: "phone"}
_PROVIDERS = {Provider.APNS: "Apple", Provider.FCM: "Google", None: "The provider"}

_OUTCOMES = {
    "rejected": "refused for good",
    "unregistered": "its token was refused",
    "throttled": "put off",
    "unavailable": "not taken",
    "misconfigured": "we were refused",
    "unknown": "unclear whether it was taken",
}


def in_words(what: Happening) -> str:
    """Say what happened."""
    return _SENTENCES[what.event](what)


def now_quiet(hours: QuietHours | None) -> str:
    """Say when the person's quiet hours are by now, after what they withheld: they may have been others then."""
    if hours is None:
        return ""
    where = hours.time_zone or "by each phone's clock"
    return f" They are now from {hours.starts:%H:%M} to {hours.ends:%H:%M}, {where}."


def _planned(what: Happening) -> str:
    planned = f"Planned {_push(what)} for {_phone(what)}, due at {_at(what, 'due_at')}."
    if not what.detail["is_pending"]:
        return planned
    waits = f" It waits: {why(what.reason)}" if what.reason else " It has not gone out yet."
    return planned + waits + _next_try(what)


def _next_try(what: Happening) -> str:
    if _is_past(what, "expires_at"):
        return f" It expired at {_at(what, 'expires_at')}: the workers or Temporal may be away."
    if _is_past(what, "next_attempt_at"):
        return f" It has been due since {_at(what, 'next_attempt_at')}, and waits for its turn or for a worker."
    return f" To be tried at {_at(what, 'next_attempt_at')}." if _has(what, "next_attempt_at") else ""


def _unopened(what: Happening) -> str:
    push, due_at = _push(what), _at(what, "due_at")
    if _is_past(what, "expires_at"):
        told = f"{push} was due at {due_at} and expired at {_at(what, 'expires_at')}; nobody opened it in time"
    else:
        told = f"{push} has been due since {due_at}; nobody has opened it yet"
    return f"{told[0].upper()}{told[1:]}: the workers or Temporal may be away."


def _withheld(what: Happening) -> str:
    if what.installation_id is not None:
        return f"Did not push {_push(what)} to {_phone(what)}: {why(what.reason)}"
    reason = "no phone of theirs has an active token." if what.reason == "no_active_token" else why(what.reason)
    return f"Did not push {_push(what)} to any phone: {reason}"


def _attempted(what: Happening) -> str:
    if what.reason is not None:
        return f"Did not ask {_provider(what)} to show {_push(what)} on {_phone(what)}: {why(what.reason)}"
    return f"Asked {_provider(what)} to show {_push(what)} on {_phone(what)} (call {what.detail['attempt']})."


def _answered(what: Happening) -> str:
    call = f"{_provider(what)}, call {what.detail['attempt']}"
    latency = what.detail["latency_ms"]
    after = "" if latency is None else f" after {latency} ms"
    if what.detail["outcome"] == "accepted":
        return f"{call}: accepted{after}."
    again = f" To be tried again at {_at(what, 'retry_at')}." if _has(what, "retry_at") else ""
    if what.reason in UNCALLED:
        return f"{call}: not made; {why(what.reason)}{again}"
    return f"{call}: {_OUTCOMES[what.detail['outcome']]}{after and f',{after}'}; {why(what.reason)}{again}"


def _accepted(what: Happening) -> str:
    if what.reason == "validated":
        return f"Checked {_push(what)} for {_phone(what)}: {why(what.reason)}"
    return (
        f"{_provider(what)} accepted {_push(what)} for {_phone(what)}. From here the phone's own settings decide: "
        "focus, muted notifications, no network."
    )


def _rejected(what: Happening) -> str:
    if what.reason in UNCALLED:
        return f"Not sent to {_phone(what)}: {_push(what)}; {why(what.reason)}"
    return f"{_provider(what)} refused {_push(what)} for {_phone(what)} for good: {why(what.reason)}"


def _not_sent(what: Happening) -> str:
    return f"Not sent to {_phone(what)}: {_push(what)}; {why(what.reason)}"


def _expired(what: Happening) -> str:
    late = what.reason in {None, "too_late", "expired"}
    before = "" if late else f" Before that: {why(what.reason)}"
    return f"Not sent to {_phone(what)}: {_push(what)} expired, so showing it would have misled.{before}"


def _dead(what: Happening) -> str:
    too_late = what.reason == "opened_too_late" or _is_past(what, "expires_at")
    redrive = "" if too_late else " It can be redriven while it is of use."
    return f"Gave up on {_push(what)} for {_phone(what)}: {why(what.reason)}{redrive}"


def _redriven(what: Happening) -> str:
    return f"{what.detail['actor']} redrove {_push(what)} for {_phone(what)}, which was dead: {why(what.reason)}"


def _test_push(what: Happening) -> str:
    phones = len(what.detail["installations"])
    dry = " which only its provider checks," if what.detail["validate_only"] else ""
    return f"{what.detail['actor']} asked for a test push,{dry} to {phones} {'phone' if phones == 1 else 'phones'}."


def _fast_started(what: Happening) -> str:
    started = f"Started a fast until {_at(what, 'first_ends_at')}."
    if not what.detail["changes"]:
        return started + _reminders(what)
    is_moved = _instant(what, "first_ends_at") != _instant(what, "ends_at")
    return started if is_moved else started + _reminders_of_then(what)


def _goal_moved(what: Happening) -> str:
    moved = f"Moved the fast's goal to {_at(what, 'ends_at')}"
    if what.detail["changes"] == 1:
        return f"{moved}.{_reminders(what)}"
    return f"{moved}; the fast was changed {what.detail['changes']} times.{_present_reminders(what)}"


def _reminders(what: Happening) -> str:
    """List the reminders, which are what they were at that time, and those that came too late to be set."""
    minutes = _minutes(what)
    if not minutes:
        return " Without reminders."
    skipped = _due_when_set(what)
    late = f" Skipped, since that was past already: {_listed(skipped)}." if skipped else ""
    return f" Reminders, in minutes before the end: {_listed(minutes)}.{late}"


def _reminders_of_then(what: Happening) -> str:
    """Tell the reminders that a fast was started with, as far as they are known, and what they are by now."""
    first: list[int] | None = what.detail["first_reminder_minutes"]
    if first is not None and set(first) != set(_minutes(what)):
        then = _listed(sorted(first, reverse=True)) if first else "none"
        return f" Reminders, in minutes before the end: {then}. They were changed later.{_present_reminders(what)}"
    is_certain = what.detail["changes"] == 1  # for the goal is where it was
    return f"{' Its reminders were changed later.' if is_certain else ''}{_present_reminders(what)}"


def _present_reminders(what: Happening) -> str:
    """List the reminders as they are by now; one that was due when they were set may have been sent before that."""
    minutes = _minutes(what)
    if not minutes:
        return " By now it is without reminders."
    late = _due_when_set(what)
    skipped = f" Skipped, unless sent before, since that was past already: {_listed(late)}." if late else ""
    return f" By now its reminders are, in minutes before the end: {_listed(minutes)}.{skipped}"


def _minutes(what: Happening) -> list[int]:
    return sorted(what.detail["reminder_minutes"], reverse=True)


def _due_when_set(what: Happening) -> list[int]:
    ends_at, set_at = _instant(what, "ends_at"), _instant(what, "scheduled_at")
    late: list[int] = what.detail["late_minutes"]
    return [each for each in _minutes(what) if each in late or ends_at - timedelta(minutes=each) <= set_at]


def _signed_out(what: Happening) -> str:
    if what.reason != "too_many_installations":
        return f"Signed out on {_phone(what)}; it gets no pushes any more."
    many = "this person registered more phones than one user may have, and this one was not seen for longest"
    return f"Signed out on {_phone(what)}: {many}. Opening the app there registers it again."


def _said(sentence: str) -> Callable[[Happening], str]:
    """Make a sentence in which {phone}, {provider}, {push} and {why} are filled in."""

    def say(what: Happening) -> str:
        return sentence.format(phone=_phone(what), provider=_provider(what), push=_push(what), why=why(what.reason))

    return say


_SENTENCES: Mapping[Event, Callable[[Happening], str]] = {
    Event.REGISTERED: _said("Registered {phone} for pushes."),
    Event.REACTIVATED: _said("Registered {phone} again; it can be pushed to once more."),
    Event.ROTATED: _said("The app on {phone} registered another token; this one is not used any more."),
    Event.TRANSFERRED: _said("Somebody else signed in on {phone}; it gets no pushes of this person any more."),
    Event.SIGNED_OUT: _signed_out,
    Event.INVALIDATED: _said("Stopped pushing to {phone} until the app is opened there: {why}"),
    Event.FAST_STARTED: _fast_started,
    Event.GOAL_MOVED: _goal_moved,
    Event.FAST_COMPLETED: _said("Completed the fast; reminders that were not sent by then are not sent."),
    Event.FAST_BROKEN: _said("Broke the fast; reminders that were not sent by then are not sent."),
    Event.FAST_CANCELLED: _said("Cancelled the fast; reminders that were not sent by then are not sent."),
    Event.WITHHELD: _withheld,
    Event.UNOPENED: _unopened,
    Event.PLANNED: _planned,
    Event.ATTEMPTED: _attempted,
    Event.ANSWERED: _answered,
    Event.ACCEPTED: _accepted,
    Event.OPENED: _said("Tapped {push} on {phone}."),
    Event.SYNCED: _said("The app on {phone} has read what {push} is about."),
    Event.REJECTED: _rejected,
    Event.UNREGISTERED: _rejected,
    Event.EXPIRED: _expired,
    Event.WITHDRAWN: _not_sent,
    Event.DEAD: _dead,
    Event.REDRIVEN: _redriven,
    Event.TEST_PUSH: _test_push,
    Event.OTHER: lambda _: "Something happened that this release cannot tell; a newer one wrote it.",
}


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
    """Name a phone by the first characters of its installation's id."""
    return f"the {_PHONES[what.provider]} {str(what.installation_id)[:8]}"


def _provider(what: Happening) -> str:
    return _PROVIDERS[what.provider]


def _listed(minutes: list[int]) -> str:
    return ", ".join(map(str, minutes))


def _has(what: Happening, field: str) -> bool:
    return what.detail.get(field) is not None


def _is_past(what: Happening, field: str) -> bool:
    return _has(what, field) and _instant(what, field) <= what.now


def _instant(what: Happening, field: str) -> datetime:
    """Read an instant of the detail, which PostgreSQL wrote as JSON."""
    value: Any = what.detail[field]
    return datetime.fromisoformat(value).astimezone(UTC)


def _at(what: Happening, field: str) -> str:
    return f"{_instant(what, field):%Y-%m-%d %H:%M:%S} UTC"
