"""The table of problem types: the status of each, when it is answered, and an answer as an example.

`tests/api/test_problem_types.py` provokes every one of them and compares the answer with the example.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MEDIA_TYPE = "application/problem+json"
URN = "urn:fastbell:problem:"
TITLES = {
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    410: "Gone",
    412: "Changed meanwhile",
    413: "Body too large",
    422: "Invalid request",
    429: "Too many requests",
    431: "Head too large",
    500: "Internal error",
    503: "Temporarily unavailable",
}


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One type of problem. `detail` and `fields` are those of an answer that really comes; digits may differ."""

    name: str  # the last part of the URN
    status: int
    when: str  # and what to do; sentences for the API's document
    detail: str
    fields: Mapping[str, Any] = field(default_factory=dict)  # besides the five of every problem

    def example(self, **others: Any) -> dict[str, Any]:  # noqa: ANN401 -- any JSON
        """Give an answer of this type."""
        body = {"type": URN + self.name, "title": TITLES[self.status], "status": self.status, "detail": self.detail}
        return body | dict(self.fields) | others


PROBLEMS: Mapping[str, ProblemType] = {
    each.name: each
    for each in (
        ProblemType(
            "not-signed-in",
            401,
            "The request has no valid bearer token. Get a new token and repeat the request.",
            "Send a bearer token in the Authorization header.",
        ),
        ProblemType(
            "not-allowed", 403, "The bearer token lacks a scope.", "This needs a bearer token with the scope service."
        ),
        ProblemType(
            "act-for-a-user",
            403,
            "The bearer token has the scope `service`, and this route is a user's own. Use the one below "
            "`/v1/users/{user_id}/` that the answer names.",
            "A bearer token with the scope service acts for users: use /v1/users/{user_id}/device-tokens.",
        ),
        ProblemType(
            "not-found",
            404,
            "There is no such thing, or it belongs to another user.",
            "There is no such fasting session.",
        ),
        ProblemType(
            "session-exists",
            409,
            "The id belongs to a fasting session with other content. To change that one, use PATCH.",
            "This fasting session was started with other content. Use PATCH to change it.",
        ),
        ProblemType(
            "session-finished",
            409,
            "The fasting session has ended or was cancelled. Start a new one.",
            "This fasting session is cancelled. It can no longer be changed.",
        ),
        ProblemType(
            "too-many-active-fasts",
            409,
            "The user has as many active fasts as are allowed. End or cancel one of them first.",
            "A user may have 20 active fasts at a time. End or cancel one of them first.",
        ),
        ProblemType(
            "installation-taken",
            409,
            "Another user is signed in on this installation. Send their ticket as `former_ticket`, or register under a "
            "new installation id.",
            "Somebody else is signed in here. Register with their ticket, or under a new installation id.",
        ),
        ProblemType(
            "ticket-spent",
            409,
            "The ticket of this registration has already signed it out. Register with a new ticket.",
            "The ticket of this registration has signed it out already. Sign in with a new ticket.",
        ),
        ProblemType(
            "registration-outdated",
            409,
            "A registration with a higher `sequence` came first. It stays. If this one is the newest, register with a "
            "new ticket.",
            "A later registration of this sign-in was stored already. It stays as it is.",
        ),
        ProblemType(
            "installation-inactive",
            409,
            "The installation is signed out. Register its token first.",
            "This installation is signed out. Register its token first.",
        ),
        ProblemType(
            "message-exists",
            409,
            "The id belongs to a message with other content or of another user.",
            "This message was already posted, with other content or by another user.",
        ),
        ProblemType(
            "being-erased",
            409,
            "All data of the person is being deleted. Try again when the erasure is done.",
            "This person is being erased. Try again when the erasure is done.",
        ),
        ProblemType(
            "no-active-token",
            409,
            "No push can be sent: the user, or the installation, has no active device token. `reason` says which.",
            "No phone of this person has an active token.",
            {"reason": "no_active_token"},
        ),
        ProblemType(
            "push-not-dead",
            409,
            "Only a dead push task can be redriven.",
            "This push task is pending. Only a dead one can be redriven.",
            {"reason": "not_dead"},
        ),
        ProblemType(
            "redrive-refused",
            409,
            "The push may not be sent any more. `reason` says why.",
            "This push cannot be redriven: it has expired, and showing it now would mislead.",
            {"reason": "expired"},
        ),
        ProblemType(
            "brake-resumed",
            409,
            "Another operator has already resumed this route.",
            "carol has already resumed this route.",
        ),
        ProblemType(
            "too-many-webhooks",
            409,
            "There are as many webhooks as are allowed. Delete one of them first.",
            "There may be 50 webhooks. Delete one of them first.",
        ),
        ProblemType(
            "webhook-disabled",
            409,
            "The webhook is disabled. Store it again to enable it.",
            "This webhook is disabled. PUT its url again to enable it.",
        ),
        ProblemType(
            "cursor-too-old",
            410,
            "The log no longer holds the items after this cursor. Read the conversations and fasting sessions again, "
            "then continue from `next_cursor`.",
            "The log no longer holds items this old. Nothing is lost: read /v1/conversations with their messages and "
            "/v1/fasting-sessions again, then continue from cursor 7.",
            {"next_cursor": 7},
        ),
        ProblemType(
            "event-cursor-too-old",
            410,
            "The feed no longer holds the events after this cursor. Continue from `next_cursor`.",
            "The feed no longer holds the events after this cursor. Continue from cursor 7.",
            {"next_cursor": 7},
        ),
        ProblemType(
            "preferences-changed",
            412,
            "`If-Match` is not the newest revision. Read the preferences again, then repeat the change.",
            "The newest revision is 1. Read it, then change that.",
        ),
        ProblemType(
            "body-too-large", 413, "The body is larger than the API reads.", "A body may have at most 65536 bytes."
        ),
        ProblemType(
            "invalid-request",
            422,
            "A field, a parameter or the body is wrong. `field` names the first one, `errors` lists up to 20.",
            "ends_at: Field required",
            {"field": "ends_at", "errors": [{"field": "ends_at", "detail": "Field required"}]},
        ),
        ProblemType(
            "too-many-requests",
            429,
            "The caller makes more requests than are allowed. Repeat after the seconds in `Retry-After`.",
            "Too many requests. Try again later.",
        ),
        ProblemType(
            "too-many-concurrent-requests",
            429,
            "The caller has too many requests under way. Repeat after the seconds in `Retry-After`.",
            "At most 8 requests of one caller run at a time. Try again when others are answered.",
        ),
        ProblemType(
            "too-many-messages",
            429,
            "The user has posted too many messages in this conversation. Repeat after the seconds in `Retry-After`.",
            "Too many messages in this conversation. Post this one again later.",
        ),
        ProblemType(
            "unavailable",
            503,
            "The database or this process cannot serve the request now. Repeat after the seconds in `Retry-After`: "
            "repeats are harmless.",
            "The database cannot be reached. Try again: repeats are harmless.",
        ),
    )
}

_WAIT = {"Retry-After": {"description": "Seconds after which to repeat it.", "schema": {"type": "integer"}}}
_HEADERS = {429: {"headers": _WAIT}, 503: {"headers": _WAIT}}
OF_ANYBODY = ("body-too-large", "invalid-request", "too-many-requests", "unavailable")
OF_CALLERS = ("not-signed-in", "too-many-concurrent-requests")


def responses(*kinds: str | int) -> dict[int | str, dict[str, Any]]:
    """Document the problems that a route may answer with, besides those of every route for callers.

    They are named by type, or by a status that has only one type.
    """
    return anonymous_responses(*OF_CALLERS, *kinds)


def anonymous_responses(*kinds: str | int) -> dict[int | str, dict[str, Any]]:
    """Document the problems of a route that takes no bearer token."""
    wanted = {*OF_ANYBODY, *kinds}
    unknown = wanted - PROBLEMS.keys() - TITLES.keys()
    assert not unknown, f"no problem types: {unknown}"
    documented: dict[int | str, dict[str, Any]] = {}
    for status in sorted({each if isinstance(each, int) else PROBLEMS[each].status for each in wanted}):
        possible = [each for each in PROBLEMS.values() if each.status == status]
        is_only = status in wanted and len(possible) == 1
        documented[status] = _documented(status, [each for each in possible if is_only or each.name in wanted])
    return documented


def _documented(status: int, kinds: Sequence[ProblemType]) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    examples = {each.name: {"value": each.example()} for each in kinds}
    return {
        "description": "\n".join([f"{TITLES[status]}.\n", *(f"- `{each.name}`: {each.when}" for each in kinds)]),
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
        **_HEADERS.get(status, {}),
    }
