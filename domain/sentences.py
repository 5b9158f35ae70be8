"""The sentences of a timeline, which a support person can read out: one table of format strings.

{push}, {phone}, {phones}, {provider} and {why} are filled in everywhere, {Push} and {Provider} begin a sentence; the
other fields are those of the event (`domain/timeline_words.py`). {why} ends with its own full stop.
"""

from collections.abc import Mapping
from enum import StrEnum

from domain.devices import Permission
from domain.push import TaskState
from domain.timeline import Event, WaitsFor

PAST: Mapping[Event, str] = {
    Event.REGISTERED: "Registered {phone} for pushes.",
    Event.REACTIVATED: "Registered {phone} again. It gets pushes again.",
    Event.ROTATED: "The app on {phone} registered a new token. The old one is no longer used.",
    Event.TRANSFERRED: (
        "The token of {phone} was registered by another account, or by another installation of the app. "
        "This installation no longer gets pushes."
    ),
    Event.SIGNED_OUT: "Signed out on {phone}. It no longer gets pushes.",
    Event.INVALIDATED: "Stopped sending to {phone}: {why}",
    Event.FAST_COMPLETED: "Completed the fast. Reminders that had not been sent are not sent.",
    Event.FAST_BROKEN: "Broke the fast. Reminders that had not been sent are not sent.",
    Event.FAST_CANCELLED: "Cancelled the fast. Reminders that had not been sent are not sent.",
    Event.PLANNED: "Planned {push} for {phone}, due at {due_at}.",
    Event.OPENED: "Tapped {push} on {phone}.",
    Event.SYNCED: "The app on {phone} has read what {push} is about.",
    Event.REJECTED: "{Provider} refused {push} for {phone} for good: {why}",
    Event.UNREGISTERED: "{Provider} refused the token of {phone}, so {push} did not reach it: {why}",
    Event.WITHDRAWN: "{Push} was not sent to {phone}: {why}",
    Event.EXPIRED: "{Push} was not sent to {phone}: it expired at {expires_at}.",
    Event.REDRIVEN: "{actor} redrove {push} for {phone}. It had been dead: {why}",
    Event.UNOPENED: (
        "{Push} has been due since {due_at}. It has not been processed yet: the background service may be down."
    ),
    Event.WITHHELD: "Did not push {push} to {whom}: {why}",
    Event.OTHER: "Something happened that this release cannot describe. A newer release recorded it.",
    Event.TEST_PUSH: "{actor} sent a test push to {phones_count}.{dry}",
}


PERMISSION_TOLD: Mapping[str | None, str] = {
    Permission.DENIED: "The app on {phone} reported that notifications are switched off there.",
    Permission.UNDETERMINED: (
        "The app on {phone} reported that the person has not been asked yet whether it may show notifications."
    ),
    Permission.PROVISIONAL: (
        "The app on {phone} reported that notifications are allowed provisionally there: listed, without a sound."
    ),
    Permission.GRANTED: "The app on {phone} reported that notifications are allowed there.",
}

# What a phone does with a push, according to its app. Nothing is said where all is shown.
SHOWS: Mapping[Permission, str] = {
    Permission.DENIED: (
        " Notifications are switched off on that phone, according to the app's last registration at "
        "{permission_told_at}. While they are, the phone shows nothing."
    ),
    Permission.UNDETERMINED: (
        " The person had not been asked whether the app may show notifications, according to its last registration at "
        "{permission_told_at}. Until they allow it, the phone shows nothing."
    ),
    Permission.PROVISIONAL: (
        " Notifications are allowed provisionally on that phone, according to the app's last registration at "
        "{permission_told_at}. While that is so, the phone lists them without a sound."
    ),
    Permission.GRANTED: "",
}
NO_PHONE_SHOWS = " None of this person's phones shows notifications, according to the last registrations of the app."


class Past(StrEnum):
    """Sentences of events that have more than one, and their parts."""

    STARTED = "Started a fast until {first_ends_at}."
    MOVED = "Moved the fast's goal to {ends_at}."
    CHANGED = " The fast was changed {changes} times."
    REMINDERS_CHANGED = " Its reminders were changed later."
    REMINDERS = " Reminders, in minutes before the end: {minutes}."
    NO_REMINDERS = " Without reminders."
    REMINDERS_NOW = " Reminders now, in minutes before the end: {minutes}."
    NO_REMINDERS_NOW = " There are no reminders now."
    REMINDERS_FIRST = " Reminders, in minutes before the end: {first_minutes}. They were changed later."
    SKIPPED = " Skipped, because it was too late for them: {skipped}."
    SKIPPED_UNLESS_SENT = " Skipped, because it was too late for them, unless sent before: {skipped}."
    QUIET_NOW = " Quiet hours are now from {starts:%H:%M} to {ends:%H:%M}, {where}."
    NO_QUIET_NOW = " There are no quiet hours now."
    CROWDED_OUT = "Signed out on {phone}: {why}"
    NOT_CALLED = "Did not ask {provider} to show {push} on {phone}: {why}"
    CALLING = "Began to ask {provider} to show {push} on {phone} (call {attempt}). The result is not known yet."
    CALL_LOST = "Was about to ask {provider} to show {push} on {phone} (call {attempt})."
    CALLED = "Asked {provider} to show {push} on {phone} (call {attempt})."
    SILENT_AT_NIGHT = " Without a sound, because of the person's quiet hours."
    SILENT_SO_SOON = " Without a sound: the notification that it replaces had sounded less than a minute before."
    TOOK_IT = "{Provider} accepted call {attempt}{after}."
    NO_CALL = "Call {attempt} to {provider} was not made: {why}"
    ANSWERED = "Call {attempt} to {provider} ended{after}: {why}"
    UNCLEAR = " It is unclear whether {provider} took it."
    REFUSED_IN_A_MASS = (
        "Call {attempt} to {provider} ended{after}: the token was refused ({reason}). So many tokens were refused at "
        "that time that this says nothing about the phone."
    )
    TRIED_AGAIN = " The next try is at {retry_at}."
    ASKED_FOR_PATIENCE = " {Provider} asked not to be called before {asked_until}. {Push} expires before that."
    ACCEPTED = "{Provider} accepted {push} for {phone}{when}.{cause}{shows}"
    SETTINGS_DECIDE = " From here the phone's own settings decide: focus, muted notifications, no network."
    VALIDATED = "Checked {push} for {phone}: {why}"
    ON_TIME = ", on time"
    LATE = ", {late} late"
    HELD_UP = " What held it up last: {why}"
    HELD_UP_BY_LOSS = " An earlier call may have brought it before that: {why}"
    HELD_UP_BY_CUTOFF = " Sending to {phones} had been stopped, because many tokens were refused at once."
    REDRIVEN_LATE = " It was sent again only at {again_at}: it was redriven, or its phone registered again."
    REDRIVEN_AFTER_CUTOFF = (
        "{actor} redrove {push} for {phone}, which had been given up when sending to {phones} was stopped ({reason})."
    )
    PROCESSED_LATE = " It was processed only at {created_at}: the workers, Temporal or the database were late."
    MESSAGE_PROCESSED_LATE = (
        " It was processed only at {created_at}: an earlier push of its conversation was still under way, or the "
        "workers, Temporal or the database were late."
    )
    ANSWERED_LATE = " {Provider} was called at {called_at}, and took {took} to answer."
    NOTHING_HELD_IT_UP = " No obstacle is on record: the workers or the database were busy, stopped or late."
    REFUSED_BUT_KEPT = (
        "{Provider} refused the token of {phone}, so {push} did not reach it: {provider} says that the token was dead "
        "before the app registered it last ({reason}). So the token is kept, and the next push is tried with it."
    )
    SUSPECT_KEPT = (
        " The settings of the service may be to blame as well, so the token is kept, and the next push is tried with "
        "it."
    )
    NOT_SENT = "{Push} was not sent to {phone}: {why}"
    BEFORE_THAT = " Before that: {why}"
    UNOPENED_EXPIRED = (
        "{Push} was due at {due_at} and expired at {expires_at}. It was not processed: the background service was down "
        "or late."
    )
    DIED = "Gave up on {push} for {phone}: {why}"
    DIED_EXPIRED = "Gave up on {push} for {phone} when it expired at {expires_at}: {why}"
    DIED_OF_CUTOFF = (
        "Sending to {phones} was stopped{engaged}, because many tokens were refused at once ({reason}). "
        "So the phone is not to blame. {Push} for {phone} was given up."
    )
    DIED_BEHIND_CUTOFF = (
        "Sending to {phones} was stopped{engaged}, because many tokens were refused at once. "
        "So the phone is not to blame. {Push} for {phone} was given up when it expired at {expires_at}."
    )
    DRY = " Only the provider checks it. No phone shows it."
    REDRIVABLE = " A person can redrive it until {expires_at}."
    RESUME_FIRST = (
        " It cannot be redriven yet. First an operator has to find the cause and resume the route. "
        "After that a person can redrive it until {expires_at}."
    )
    NOT_REDRIVABLE = " It cannot be redriven: {refusal}"


PRESENT: Mapping[WaitsFor, str] = {
    WaitsFor.CHECK: "{head} It will not be sent: {refusal}",
    WaitsFor.EXPIRY: "{Push}{to} expired at {expires_at} and was not sent. The workers or Temporal may be down.",
    WaitsFor.RESUME: (
        "{head} Sending to {phones} has been stopped since {engaged_at}, because many tokens were refused at once "
        "({token_errors} of {answers} users, most often {cutoff_reason}). This says nothing about the phone. "
        "An operator has to find the cause and resume the route (cli.py gates resume {brake_id}).{then}"
    ),
    WaitsFor.REDRIVE: "{head} {Why} A person can redrive it until {expires_at}.",
    WaitsFor.ANSWER: "{head} {Provider} was called at {call_since} and has not answered yet.",
    WaitsFor.WORKER: (
        "{head} No worker has reported for 10 s, so nothing is sent. An operator has to check the workers.{until}"
    ),
    WaitsFor.TEMPORAL: "{head} {temporal} An operator has to check Temporal.{until}",
    WaitsFor.ROUTE: "{head} Sending to {phones} is paused{rest}: {why}{trial}{next}{until}",
    WaitsFor.RETRY: "{head} It waits for another try: {why}{next}{until}",
    WaitsFor.DUE: "{head} No obstacle is known.{until}",
    WaitsFor.TAKEOVER: "{head} The worker that held it has stopped. Another worker takes it over.{until}",
    WaitsFor.TURN: "{head} No obstacle is known: the workers are busy or late.{until}",
    WaitsFor.NOTHING: "{head} No obstacle is known.{until}",
}


class Present(StrEnum):
    """Parts of these sentences."""

    DUE = "{Push}{to} is due at {due_at}."
    LATE = "{Push}{to} has been due since {due_at} and has not been sent yet."
    ACCEPTED_JUST_NOW = "{Push}{to} was accepted at {due_at}. Open apps get it first, and other phones within seconds."
    DEAD = "{Push}{to} is dead. It was due at {due_at}."
    EXPIRES = " It expires at {expires_at}."
    THEN_REDRIVE = " After that a person can redrive it until {expires_at}."
    THEN_SENT = " After that it is sent, unless it has expired at {expires_at}."
    NEXT = " The next try is at {next_attempt_at}."
    NO_NEXT = " There is no other try before it expires."
    AFTER_REST = " After that it is tried again."
    REST = " until {route_until}"
    ONE_CALL = " One push at a time is tried."
    CUTOFF_OVER = (
        "{head} Sending to {phones} had been stopped, because many tokens were refused at once ({reason}). This says "
        "nothing about the phone. A person can redrive it until {expires_at}."
    )
    ROUTE_RESUMED = (
        "{head} Sending to {phones} had been stopped, because many tokens were refused at once. This says nothing "
        "about the phone. The route was resumed, and the push is tried again.{next}{until}"
    )
    OWED = "It has been waiting for Temporal since {owed_since}."
    SILENT = "It waits for Temporal, which does not answer the workers."


# The state of a test push on one phone.
STANDINGS: Mapping[TaskState, str] = {
    TaskState.ACCEPTED: "Accepted by the provider.",
    TaskState.PENDING: "On its way{because}",
    TaskState.REJECTED: "Refused by the provider{because}",
    TaskState.UNREGISTERED: "Its token was refused by the provider{because}",
    TaskState.EXPIRED: "Not sent before it expired{because}",
    TaskState.WITHDRAWN: "Not sent{because}",
    TaskState.DEAD: "Given up{because}",
}
