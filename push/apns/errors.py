"""What each of Apple's refusals means."""

from push.verdict import Verdict, by_status, code, note_unknown

# https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
VERDICTS: dict[tuple[int, str], Verdict] = {
    (400, "BadDeviceToken"): Verdict.SUSPECT_TOKEN,
    (400, "DeviceTokenNotForTopic"): Verdict.MISMATCHED_TOKEN,
    (400, "BadTopic"): Verdict.MISCONFIGURED,
    (400, "MissingTopic"): Verdict.MISCONFIGURED,
    (400, "TopicDisallowed"): Verdict.MISCONFIGURED,
    (400, "IdleTimeout"): Verdict.RECONNECT,
    (400, "BadCollapseId"): Verdict.OUR_BUG,
    (400, "BadExpirationDate"): Verdict.OUR_BUG,
    (400, "BadMessageId"): Verdict.OUR_BUG,
    (400, "BadPriority"): Verdict.OUR_BUG,
    (400, "DuplicateHeaders"): Verdict.OUR_BUG,
    (400, "InvalidPushType"): Verdict.OUR_BUG,
    (400, "MissingDeviceToken"): Verdict.OUR_BUG,
    (400, "PayloadEmpty"): Verdict.OUR_BUG,
    (403, "BadCertificate"): Verdict.MISCONFIGURED,
    (403, "BadCertificateEnvironment"): Verdict.MISCONFIGURED,
    (403, "BadEnvironmentKeyIdInToken"): Verdict.MISCONFIGURED,
    (403, "ExpiredProviderToken"): Verdict.STALE_CREDENTIAL,
    (403, "Forbidden"): Verdict.MISCONFIGURED,
    (403, "InvalidProviderToken"): Verdict.MISCONFIGURED,
    (403, "MissingProviderToken"): Verdict.MISCONFIGURED,
    (403, "UnrelatedKeyIdInToken"): Verdict.RECONNECT,
    (404, "BadPath"): Verdict.OUR_BUG,
    (405, "MethodNotAllowed"): Verdict.OUR_BUG,
    (410, "ExpiredToken"): Verdict.DEAD_TOKEN,
    (410, "Unregistered"): Verdict.DEAD_TOKEN,
    (413, "PayloadTooLarge"): Verdict.OUR_BUG,
    (429, "TooManyProviderTokenUpdates"): Verdict.ROUTE_THROTTLED,
    (429, "TooManyRequests"): Verdict.TOKEN_THROTTLED,
    (500, "InternalServerError"): Verdict.TRANSIENT,
    (503, "ServiceUnavailable"): Verdict.TRANSIENT,
    (503, "Shutdown"): Verdict.RECONNECT,
}
BY_STATUS: dict[int, Verdict] = {  # for reasons that the table does not know yet; the rest is `by_status`
    403: Verdict.MISCONFIGURED,
    404: Verdict.MISCONFIGURED,  # a wrong address; Apple's own word for a wrong path is BadPath
    410: Verdict.MISCONFIGURED,  # a gateway may say so of an address; only Apple's own reasons kill a token
    429: Verdict.TOKEN_THROTTLED,
}


def verdict(status: int, reason: str) -> Verdict:
    """Look a refusal up; one that the table does not know is judged by its status, logged and counted."""
    known = VERDICTS.get((status, reason))
    if known:
        return known
    note_unknown("apns", status, code(reason, status))
    return BY_STATUS.get(status) or by_status(status)
