"""What each of Google's refusals means."""

from push.verdict import Verdict, by_status, code, note_unknown

# https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode
# By status and FcmError.errorCode, which alone decides about a token; "" is an error without one.
VERDICTS: dict[tuple[int, str], Verdict] = {
    (400, "INVALID_ARGUMENT"): Verdict.OUR_BUG,
    (400, "INVALID_ARGUMENT_TOKEN"): Verdict.SUSPECT_TOKEN,  # a violation of the field `message.token`
    (400, ""): Verdict.OUR_BUG,
    (401, "THIRD_PARTY_AUTH_ERROR"): Verdict.TOKEN_MISCONFIGURED,  # an iPhone; Firebase has no APNs key of its app
    (401, ""): Verdict.STALE_CREDENTIAL,
    (403, "SENDER_ID_MISMATCH"): Verdict.MISMATCHED_TOKEN,
    (403, ""): Verdict.MISCONFIGURED,
    (404, "UNREGISTERED"): Verdict.DEAD_TOKEN,
    (404, ""): Verdict.MISCONFIGURED,  # a wrong project or address
    (429, "QUOTA_EXCEEDED"): Verdict.TOKEN_THROTTLED,  # of the message's target, where nothing else is said
    (429, "QUOTA_EXCEEDED_DEVICE"): Verdict.TOKEN_THROTTLED,
    (429, "QUOTA_EXCEEDED_PROJECT"): Verdict.ROUTE_THROTTLED,
    (429, ""): Verdict.THROTTLED_UNNAMED,
    (500, "INTERNAL"): Verdict.TRANSIENT,
    (500, ""): Verdict.TRANSIENT,
    (502, ""): Verdict.TRANSIENT,
    (503, "UNAVAILABLE"): Verdict.TRANSIENT,
    (503, ""): Verdict.TRANSIENT,
    (504, ""): Verdict.TRANSIENT,
}
BY_STATUS: dict[int, Verdict] = {  # for codes that the table does not know yet; the rest is `by_status`
    403: Verdict.MISCONFIGURED,
    404: Verdict.MISCONFIGURED,
    429: Verdict.TOKEN_THROTTLED,
}


def verdict(status: int, error_code: str) -> Verdict:
    """Look a refusal up; one that the table does not know is judged by its status, logged and counted."""
    known = VERDICTS.get((status, error_code))
    if known:
        return known
    note_unknown("fcm", status, code(error_code, status))
    return BY_STATUS.get(status) or by_status(status)
