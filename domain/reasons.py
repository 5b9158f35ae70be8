"""What each reason means, in words that a support person can read out: one table for all that the code writes."""

import re
from collections.abc import Mapping
from enum import StrEnum

from domain.push import Provider, TaskState

PROVIDERS: Mapping[Provider | None, str] = {Provider.APNS: "Apple", Provider.FCM: "Google", None: "the provider"}

UNCALLED = frozenset({"claim_too_old", "readdressed", "MalformedDeviceToken"})  # an attempt ended without a call

# The provider itself answered that it did not take the push. After any other call without a verdict that is unclear.
NOT_TAKEN = frozenset({
    "InternalServerError", "ServiceUnavailable", "Shutdown", "INTERNAL", "UNAVAILABLE", "http_500", "http_503",
})  # fmt: skip

# Token errors. A push that is dead with one died of the token-error cutoff; otherwise it is settled as refused.
TOKEN_ERRORS = frozenset({
    "BadDeviceToken", "DeviceTokenNotForTopic", "ExpiredToken", "Unregistered",
    "INVALID_ARGUMENT_TOKEN", "SENDER_ID_MISMATCH", "UNREGISTERED",
})  # fmt: skip

# The provider says since when the token is dead, which may be before its last registration. Then it is kept.
SAYS_GONE = frozenset({"ExpiredToken", "Unregistered", "UNREGISTERED"})

# Either the token is dead or our environment is wrong: the token is kept until later pushes to others are accepted.
SUSPECTS = frozenset({"BadDeviceToken", "INVALID_ARGUMENT_TOKEN"})

_BY_MEANING: Mapping[str, str] = {  # the reasons, with blanks between
    # decided by Fastbell: `domain/last_check.py`, and planning
    "only a dead push can be redriven.": "not_dead",
    "it has expired, and showing it now would mislead.": "expired too_late",
    "the fast no longer exists.": "session_missing",
    "the fast had ended.": "session_ended",
    "the fast was cancelled.": "session_cancelled",
    "the goal or the reminders of the fast were changed.": "goal_moved",
    "the person has switched off reminders.": "reminders_off",
    "the person has switched off pushes of messages.": "messages_off",
    "it falls into the person's quiet hours.": "quiet_hours",
    "the person has left the conversation.": "not_a_member",
    "its sender was erased, and its text with them.": "message_erased",
    "all data of the person is being deleted.": "being_erased",
    "the app has already read it.": "synced",
    "a newer push replaced it on the screen.": "superseded",
    "this person registered more phones than are allowed. Opening the app there registers it again.": (
        "too_many_installations"
    ),
    "the phone has no active token: the app was signed out there, its token was refused, or another account took it.": (
        "no_active_token"
    ),
    "another account has signed in on the phone.": "token_transferred",
    "the app has since registered with another provider, app or environment.": "token_changed readdressed",
    "sending on its route was stopped, because many tokens were refused at once.": "brake_engaged",
    "it was not processed in time, because the workers, Temporal or the database were down or late.": (
        "opened_too_late time_ran_out"
    ),
    "its workflow was lost or terminated.": "orphaned",
    "its record no longer exists.": "task_missing",
    "the check before sending failed for this push alone, which is our fault. An operator has to look into it.": (
        "check_failed"
    ),
    "a newer release planned it, and this one cannot read it.": "not_understood",
    "it is unclear whether {provider} took it, and a second try might show it twice.": "fate_unknown",
    "{provider} checked the push and would accept it. No phone was sent anything.": "validated",
    # nothing was called, or the worker was lost
    "another push that it would replace on the screen is being sent.": "line_taken",
    "it is already being sent.": "call_under_way",
    "the worker was stopped, and another one takes over.": "worker_shutdown closing",
    "the worker stalled, and another one takes over.": "worker_stood_still taken_over",
    "the worker stalled during the call, so it did not see the answer.": "stalled_in_call",
    "storing the result of the call failed, and is tried again.": "outcome_not_stored",
    "the result is known, but the answer that came with it could not be stored.": "unstorable_answer",
    "the worker stopped before it stored the result of the call.": "worker_lost",
    "the database did not answer in time, or the worker stalled, so the check had to be made again.": "claim_too_old",
    "what the app registered is not a token.": "MalformedDeviceToken",
    "many other pushes are ahead of it.": "crowded",
    "many pushes are ahead of it, and our own limit of calls is reached.": "rate_limited limit_reached",
    "{provider} failed a moment ago, so sending to it is paused.": "paused resting_after_failed_connection",
    # the way to the provider
    "{provider} could not be reached.": (
        "connect_failed never_ready no_slot_in_time proxy_unreachable proxy_broken oauth_unreachable "
        "no_access_token_in_time"
    ),
    "the connection to {provider} broke.": (
        "connection_lost peer_is_dead reads_nothing protocol_error lost_without_an_answer stream_reset goaway "
        "IdleTimeout UnrelatedKeyIdInToken"
    ),
    "no connection to {provider} had room.": "no_room_on_connection gives_no_room stream_ids_used_up",
    "{provider} did not answer in time.": "answer_timeout answers_nothing",
    "the answer of {provider} could not be understood.": "unreadable_answer malformed_answer",
    "something else answered in the place of {provider}: a gateway or a sign-in page.": "answered_by_another",
    # what providers say: push/apns/errors.py, push/fcm/errors.py
    "{provider} says that the app was removed from the phone, or has a newer token. Opening the app once fixes it.": (
        "Unregistered ExpiredToken UNREGISTERED"
    ),
    "{provider} does not know the token: the app was removed, or it registered with the wrong environment.": (
        "BadDeviceToken INVALID_ARGUMENT_TOKEN"
    ),
    "{provider} says that the token belongs to another app or project than the one that sends.": (
        "DeviceTokenNotForTopic SENDER_ID_MISMATCH"
    ),
    "{provider} refuses our credentials or the settings of the app. An operator has to act.": (
        "oauth_refused BadTopic MissingTopic TopicDisallowed BadCertificate BadCertificateEnvironment "
        "BadEnvironmentKeyIdInToken Forbidden InvalidProviderToken MissingProviderToken PERMISSION_DENIED "
        "NOT_FOUND"
    ),
    "Firebase has no valid APNs key for the app of this phone. An operator has to act.": "THIRD_PARTY_AUTH_ERROR",
    "the workers have no credentials for the app of this phone. An operator has to act.": "app_not_configured",
    "our credentials were out of date and are renewed.": "ExpiredProviderToken UNAUTHENTICATED",
    "{provider} found the push itself wrong, which is our fault. An operator has to look into it.": (
        "BadCollapseId BadExpirationDate BadMessageId BadPriority DuplicateHeaders InvalidPushType "
        "MissingDeviceToken PayloadEmpty BadPath MethodNotAllowed PayloadTooLarge INVALID_ARGUMENT"
    ),
    "{provider} says that this phone was sent too many pushes.": "TooManyRequests QUOTA_EXCEEDED QUOTA_EXCEEDED_DEVICE",
    "{provider} asks us for fewer pushes.": "TooManyProviderTokenUpdates QUOTA_EXCEEDED_PROJECT RESOURCE_EXHAUSTED",
    "{provider} answered that it is unavailable.": "ServiceUnavailable UNAVAILABLE Shutdown",
    "{provider} answered that it has an internal error.": "InternalServerError INTERNAL",
}
_MEANINGS = {reason: meaning for meaning, reasons in _BY_MEANING.items() for reason in reasons.split()}
_TO_ACT = re.compile(r" An operator has to [^.]+\.$")
_STATUS = re.compile(r"(http|proxy_refused)_(\d{3})")


class _Why(StrEnum):
    """Meanings that depend on more than the reason."""

    NONE = "no reason was recorded."
    STATUS = "{provider} answered with the HTTP status {status}."
    STATUS_OF_PROXY = "the proxy on the way to {provider} answered with the HTTP status {status}."
    TOKEN_REFUSED_THEN = "{provider} refused the token at that time."  # noqa: S105
    STOPPED_NOW = (
        "sending on its route is stopped, because many tokens were refused at once. An operator has to resume it."
    )
    DIED_OF_CUTOFF = (
        "{provider} refused the token, as so many at that time that sending was stopped. "
        "This says nothing about the phone."
    )


def meaning(reason: str, provider: Provider | None = None) -> str | None:
    """Say what a reason means, to follow a colon; None for an unknown one."""
    if status := _STATUS.fullmatch(reason):
        sentence = _Why.STATUS if status[1] == "http" else _Why.STATUS_OF_PROXY
        return sentence.format(provider=PROVIDERS[provider], status=status[2])
    meant = _MEANINGS.get(reason)
    return None if meant is None else meant.format(provider=PROVIDERS[provider])


def why(reason: str | None, provider: Provider | None = None) -> str:
    """Say what a reason means, or name it."""
    return _Why.NONE if reason is None else meaning(reason, provider) or f"{reason}."


def why_then(reason: str | None, provider: Provider | None = None) -> str:
    """Say how a call ended, or what held a push up, that has gone on since, so nobody has to act."""
    if reason in TOKEN_ERRORS:
        return _Why.TOKEN_REFUSED_THEN.format(provider=PROVIDERS[provider])
    return _TO_ACT.sub("", why(reason, provider))


def why_not(refusal: str | None, provider: Provider | None = None) -> str:
    """Say why a push cannot be sent, or redriven, at this moment."""
    return _Why.STOPPED_NOW if refusal == "brake_engaged" else why(refusal, provider)


def why_so(state: str, reason: str | None, provider: Provider | None = None) -> str:
    """Say why a push is in its state; one that died of the token-error cutoff is not its phone's fault.

    Where it was redriven since, what was said of the token is of that time.
    """
    if state == TaskState.DEAD and reason in TOKEN_ERRORS:
        return _Why.DIED_OF_CUTOFF.format(provider=PROVIDERS[provider])
    is_over = state in {TaskState.UNREGISTERED, TaskState.REJECTED}
    return why_then(reason, provider) if reason in TOKEN_ERRORS and not is_over else why(reason, provider)


def is_unclear(outcome: str | None, reason: str | None) -> bool:
    """Tell whether it is unknown if the provider accepted a push."""
    return outcome == "unknown" and reason not in NOT_TAKEN
