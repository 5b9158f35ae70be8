"""Notification preferences as the API shows them before a person has chosen any."""

PREFERENCES = "/v1/notification-preferences"
DEFAULTS = {
    "reminders": True,
    "reminder_minutes": [30],
    "messages": True,
    "reminder_preview": "full",
    "message_preview": "generic",
    "quiet_hours": None,
    "rev": 0,
}
