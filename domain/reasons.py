"""What each reason means, in words that a support person can read out: one table for all that the code writes."""

import re
from collections.abc import Mapping

UNCALLED = frozenset({"claim_too_old", "readdressed", "MalformedDeviceToken"})  # an attempt ended without a call

_BY_MEANING: Mapping[str, tuple[str, ...]] = {
    # decided here: `domain/last_check.py`, and whoever plans
    "only a dead one can be.": ("not_dead",),
    "it has expired, so a phone that showed it would mislead.": ("expired", "too_late"),
    "its fasting session is gone.": ("session_missing",),
    "its fasting session is over.": ("session_ended",),
    "its fasting session was cancelled.": ("session_cancelled",),
    "its fasting session has another goal or other reminders by now.": ("goal_moved",),
    "the person switched reminders off.": ("reminders_off",),
    "the person switched pushes of messages off.": ("messages_off",),
    "it falls into the person's quiet hours.": ("quiet_hours",),
    "the person does not belong to its conversation any more.": ("not_a_member",),
    "the app has read it already.": ("synced",),
    "a newer push has taken its line on the screen.": ("superseded",),
    "the installation has no active token.": ("no_active_token",),
    "the phone is somebody else's by now.": ("token_transferred",),
    "the installation registered with another provider, app or environment.": ("token_changed", "readdressed"),
    "the brake on its route is engaged; resume it first.": ("brake_engaged",),
    "nobody could open it before it expired; the workers or Temporal were away.": ("opened_too_late", "time_ran_out"),
    "its workflow is gone; the orphan sweep found it.": ("orphaned",),
    "its record is gone.": ("task_missing",),
    "the check before sending failed for this push alone: a fault of ours, which an operator has to look into.": (
        "check_failed",
    ),
    "a newer release planned it, and this one cannot read it.": ("not_understood",),
    "nobody knows whether the provider took it, and a second try might show it twice.": ("fate_unknown",),
    "the provider checked the push and would take it; no phone was told.": ("validated",),
    # nothing was called, or the worker was lost
    "another push to the same line of the screen is being sent.": ("line_taken",),
    "a call for it is under way.": ("call_under_way",),
    "the worker was stopped and another one takes over.": ("worker_shutdown", "closing"),
    "the worker stood still for a while, and another one takes over.": ("worker_stood_still",),
    "the worker was lost during the call.": ("worker_lost",),
    "the database does not take the outcome of the call yet.": ("outcome_not_stored",),
    "the outcome is certain, but the words that came with it could not be stored.": ("unstorable_answer",),
    "the database was slow, so the check had to be made again.": ("claim_too_old",),
    "what the app registered is no token.": ("MalformedDeviceToken",),
    "so many pushes are ahead of it at our limit of calls.": ("rate_limited", "limit_reached", "crowded"),
    "the provider had trouble a moment ago, so its route rests.": ("paused", "resting_after_failed_connection"),
    # the way to the provider
    "the provider could not be reached.": (
        "connect_failed",
        "never_ready",
        "no_slot_in_time",
        "proxy_unreachable",
        "proxy_broken",
        "oauth_unreachable",
        "no_access_token_in_time",
    ),
    "the connection to the provider broke.": (
        "connection_lost",
        "peer_is_dead",
        "reads_nothing",
        "protocol_error",
        "lost_without_an_answer",
        "stream_reset",
        "goaway",
        "IdleTimeout",
        "UnrelatedKeyIdInToken",
        "Shutdown",
    ),
    "no connection had room.": ("no_room_on_connection", "gives_no_room", "stream_ids_used_up"),
    "the provider did not answer in time.": ("answer_timeout", "answers_nothing"),
    "the provider's answer could not be read.": ("unreadable_answer", "malformed_answer"),
    "something else answered in the provider's place: a gateway or a sign-in page.": ("answered_by_another",),
    # what providers say: push/apns_verdicts.py, push/fcm_verdicts.py
    "the provider says that the app is gone from the phone, or has another token by now; it is to be opened again.": (
        "Unregistered",
        "ExpiredToken",
        "UNREGISTERED",
    ),
    "the provider does not know the token: the app was removed, or registered with the wrong environment.": (
        "BadDeviceToken",
        "INVALID_ARGUMENT_TOKEN",
    ),
    "the token belongs to another app or project than the one that sends.": (
        "DeviceTokenNotForTopic",
        "SENDER_ID_MISMATCH",
    ),
    "our credentials or the settings of the app are wrong; an operator has to act.": (
        "app_not_configured",
        "oauth_refused",
        "BadTopic",
        "MissingTopic",
        "TopicDisallowed",
        "BadCertificate",
        "BadCertificateEnvironment",
        "BadEnvironmentKeyIdInToken",
        "Forbidden",
        "InvalidProviderToken",
        "MissingProviderToken",
        "THIRD_PARTY_AUTH_ERROR",
        "PERMISSION_DENIED",
        "NOT_FOUND",
    ),
    "our credentials were out of date and are renewed.": ("ExpiredProviderToken", "UNAUTHENTICATED"),
    "the provider refuses the push as it is: a fault of ours, which an operator has to look into.": (
        "BadCollapseId",
        "BadExpirationDate",
        "BadMessageId",
        "BadPriority",
        "DuplicateHeaders",
        "InvalidPushType",
        "MissingDeviceToken",
        "PayloadEmpty",
        "BadPath",
        "MethodNotAllowed",
        "PayloadTooLarge",
        "INVALID_ARGUMENT",
    ),
    "the phone was sent too many pushes lately, says the provider.": (
        "TooManyRequests",
        "QUOTA_EXCEEDED",
        "QUOTA_EXCEEDED_DEVICE",
    ),
    "the provider asks us for fewer pushes.": (
        "TooManyProviderTokenUpdates",
        "QUOTA_EXCEEDED_PROJECT",
        "RESOURCE_EXHAUSTED",
    ),
    "the provider has trouble of its own.": ("InternalServerError", "ServiceUnavailable", "INTERNAL", "UNAVAILABLE"),
}
_MEANINGS = {reason: meaning for meaning, reasons in _BY_MEANING.items() for reason in reasons}
_STATUS = re.compile(r"(http|proxy_refused)_(\d{3})")


def meaning(reason: str) -> str | None:
    """Say what a reason means, to follow a colon; None for one that nobody here has seen."""
    if status := _STATUS.fullmatch(reason):
        who = "provider" if status[1] == "http" else "proxy on the way to the provider"
        return f"the {who} answered with the HTTP status {status[2]}."
    return _MEANINGS.get(reason)


def why(reason: str | None) -> str:
    """Say what a reason means, or name it."""
    if reason is None:
        return "no reason was noted."
    return meaning(reason) or f"{reason}."
