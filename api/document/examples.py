"""Requests as examples, by operation id: one story about alice, who works when sent as it is.

Instants lie ahead of the moment at which the document is served, and ids and tokens are new each time: an instant that
has passed, or an id that somebody else used, would be refused.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

FOR_USER = "_for_user"  # the end of the id of an operation that a service does for a user


@dataclass(frozen=True, slots=True)
class Ahead:
    """An instant so long after the document is served."""

    by: timedelta


@dataclass(frozen=True, slots=True)
class NewId:
    """A UUID that nobody used, the same for the same name within one document."""

    name: str


@dataclass(frozen=True, slots=True)
class NewToken:
    """A device token or another random text: 64 hexadecimal digits."""

    name: str


SESSION, INSTALLATION, ANDROID = NewId("fasting session"), NewId("installation"), NewId("another installation")
CONVERSATION, MESSAGE = NewId("conversation"), NewId("message")
IPHONE = {"provider": "apns", "token": NewToken("iPhone"), "locale": "de-AT", "time_zone": "Europe/Vienna"}

# What a caller chooses or knows; the other ids come from answers.
PARAMETERS: Mapping[str, Any] = {
    "conversation_id": CONVERSATION,
    "installation_id": INSTALLATION,
    "message_id": MESSAGE,
    "session_id": SESSION,
    "user_id": "alice",
    "webhook_id": NewId("webhook"),
}

IMPORTED_FAST = {"user_id": "alice", "session_id": NewId("imported fast")}
_SIXTEEN_HOURS = {"ends_at": Ahead(timedelta(hours=16)), "reminder_minutes": [60, 15]}

REQUESTS: Mapping[str, Mapping[str, Any]] = {  # by operation id, then by what the example shows
    "register_device_token": {
        "An iPhone": IPHONE | {"app_version": "2.1.0", "os_version": "26.1", "permission": "granted"},
        "An iPhone with an app from Xcode": IPHONE | {"environment": "sandbox"},
    },
    "sign_out_by_ticket": {
        "A sign-out that the phone sends late": {"installation_id": INSTALLATION, "ticket": NewToken("ticket")}
    },
    "start_fasting_session": {"16 hours, with two reminders": _SIXTEEN_HOURS | {"labels": {"name": "Tuesday's fast"}}},
    "change_fasting_session": {
        "A later goal": {"ends_at": Ahead(timedelta(hours=18))},
        "One reminder": {"reminder_minutes": [30]},
    },
    "change_fasting_sessions": {
        "A fast is started, and its goal moved": {
            "items": [
                IMPORTED_FAST | {"op": "start"} | _SIXTEEN_HOURS,
                IMPORTED_FAST | {"op": "move", "ends_at": Ahead(timedelta(hours=18))},
            ]
        },
        "It is ended": {"items": [IMPORTED_FAST | {"op": "end"}]},
    },
    "change_device_tokens": {
        "An import": {
            "items": [
                {"user_id": "alice", "installation_id": NewId("imported iPhone"), "op": "import"}
                | {"provider": "apns", "token": NewToken("imported iPhone"), "locale": "de-AT"},
                {"user_id": "bob", "installation_id": NewId("imported Pixel"), "op": "import"}
                | {"provider": "fcm", "token": NewToken("imported Pixel"), "locale": "en-GB"},
            ]
        }
    },
    "store_conversation": {"Two members": {"member_ids": ["alice", "bob"]}},
    "post_message": {"A message": {"body": "Shall we break our fast together?"}},
    "replace_preferences": {
        "Everything": {
            "reminders": True,
            "reminder_minutes": [60, 15],
            "messages": True,
            "reminder_preview": "full",
            "message_preview": "generic",
            "quiet_hours": {"starts": "22:00", "ends": "07:00", "time_zone": None, "mode": "silent"},
        }
    },
    "change_preferences": {
        "Quiet hours": {"quiet_hours": {"starts": "22:00", "ends": "07:00", "time_zone": "Europe/Vienna"}},
        "No quiet hours": {"quiet_hours": None},
        "Another default for reminders": {"reminder_minutes": [30, 5]},
    },
    "make_preference_link": {"For a browser that the app opens": {"for": "app"}, "For a mail": {"for": "email"}},
    "put_webhook": {
        "All events": {"url": "https://backend.example.com/fastbell"},
        "Pushes that failed": {
            "url": "https://backend.example.com/fastbell",
            "types": ["push.dead", "push.rejected", "push.unregistered"],
        },
    },
    "redrive_webhook_deliveries": {"All that are dead": {}},
    "send_test_push": {"To all phones": {}},
    "redrive_push_tasks": {"What would happen to Apple's": {"provider": "apns", "limit": 100, "dry_run": True}},
}


def requests_of(operation_id: str) -> Mapping[str, Any]:
    """Give the examples of an operation; one that is done for a user has those of the user's own."""
    return REQUESTS.get(operation_id) or REQUESTS.get(operation_id.removesuffix(FOR_USER)) or {}


def filled(template: Any, now: datetime, salt: str) -> Any:  # noqa: ANN401 -- JSON
    """Copy JSON with its instants ahead of `now`, and with ids and tokens that no other salt has."""
    match template:
        case Ahead():
            return (now + template.by).isoformat(timespec="seconds").replace("+00:00", "Z")
        case NewId():
            return str(UUID(bytes=hashlib.sha256(f"{salt}/{template.name}".encode()).digest()[:16], version=4))
        case NewToken():
            return hashlib.sha256(f"{salt}/{template.name}".encode()).hexdigest()
        case dict():
            return {key: filled(value, now, salt) for key, value in template.items()}
        case list():
            return [filled(each, now, salt) for each in template]
        case _:
            return template
