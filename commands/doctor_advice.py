"""What a provider's refusal of the probe means, and what to do about it.

https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode
"""

from domain.push import Provider

EXPECTED = {
    Provider.APNS: frozenset({"BadDeviceToken"}),
    Provider.FCM: frozenset({"INVALID_ARGUMENT", "INVALID_ARGUMENT_TOKEN", "UNREGISTERED"}),
}

_KEY = "Compare APNS_KEY_FILE, APNS_KEY_ID and APNS_TEAM_ID with Keys and Membership in Apple's developer account."
_TOPIC = "Set APNS_TOPIC to the bundle id of the app, as its App ID has it (case counts)."
UNREACHABLE = "See that names resolve and port 443 outward is open; where a proxy leads out, set HTTPS_PROXY."

ADVICE: dict[str, tuple[str, str]] = {  # reason: what it means, what to do
    "InvalidProviderToken": (
        "the key does not sign for this key id and team, or was revoked, or our clock is wrong",
        _KEY,
    ),
    "ExpiredProviderToken": (
        "the token that we just made is too old for Apple: our clock is behind",
        "Set the clock right.",
    ),
    "MissingProviderToken": (
        "Apple saw no token, so something on the way takes it",
        "See what the proxy does to headers.",
    ),
    "BadEnvironmentKeyIdInToken": (
        "the key is for the other environment only",
        "Make a key for sandbox and production, or leave the other environment's tokens alone.",
    ),
    "Forbidden": ("Apple knows the key and does not let it", _KEY),
    "BadTopic": ("the topic is no bundle id", _TOPIC),
    "MissingTopic": ("no topic came with the push", _TOPIC),
    "TopicDisallowed": (
        "the key's team may not push to this topic, or the key is restricted to others",
        "Use the key of the team that the app belongs to; set APNS_TOPIC to its bundle id.",
    ),
    "DeviceTokenNotForTopic": ("the topic is none of this team's", _TOPIC),
    "TooManyProviderTokenUpdates": ("somebody else signs for this team, too often", "Wait 20 minutes; share one key."),
    "oauth_refused": (
        "Google gives this service account no access token: its key was deleted, it is disabled, or our clock is wrong",
        "Make a new key: Firebase console, Project settings, Service accounts; put it at FCM_SERVICE_ACCOUNT_FILE.",
    ),
    "oauth_unreachable": ("the account's token_uri does not answer as Google does", UNREACHABLE),
    "no_access_token_in_time": ("the account's token_uri does not answer in time", UNREACHABLE),
    "SENDER_ID_MISMATCH": (
        "the project of the service account is not the one that phones register with",
        "Use a service account of the project in the app's google-services.json.",
    ),
    "THIRD_PARTY_AUTH_ERROR": (
        "the project lacks credentials of another provider",
        "This service reaches iPhones through Apple; register them with provider apns.",
    ),
    "PERMISSION_DENIED": (
        "the service account may not send in this project, or the FCM API is off there",
        "Turn the Firebase Cloud Messaging API (V1) on; give the account the role Firebase Cloud Messaging API Admin.",
    ),
    "NOT_FOUND": (
        "there is no such project at this address",
        "Compare project_id in the service account's file with the console, and FCM_URL with Google's.",
    ),
    "UNAUTHENTICATED": ("Google does not know the token that it gave", "Look for a proxy that changes headers."),
    "connect_failed": ("no connection could be made", UNREACHABLE),
    "no_slot_in_time": ("a connection was made, and no call let in", UNREACHABLE),
}
_OF_STATUS = {  # where an answer names no reason; Apple's always do
    Provider.APNS: {},
    Provider.FCM: {"http_403": "PERMISSION_DENIED", "http_404": "NOT_FOUND", "http_401": "UNAUTHENTICATED"},
}


def advice(provider: Provider, reason: str) -> tuple[str, str]:
    """Say what a reason means, and what to do."""
    known = ADVICE.get(_OF_STATUS[provider].get(reason, reason))
    if known:
        return known
    if provider is Provider.APNS and reason.startswith("http_"):
        return (
            "an answer without a reason, so it is not Apple's",
            "See what stands on the way: APNS_URL and APNS_SANDBOX_URL have to lead to Apple, past no gateway.",
        )
    if reason.startswith("proxy_"):
        return "the proxy does not lead there", "Set HTTPS_PROXY and NO_PROXY right, and let the proxy allow CONNECT."
    return "not the refusal that a token of nobody's gets", "Look it up in the provider's documentation, and try again."
