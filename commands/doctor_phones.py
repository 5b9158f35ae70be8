"""What no command can see: the steps in the apps' own projects, and on real phones."""

from commands.doctor_lines import Level, Line

_APPLE = "https://developer.apple.com/documentation/"
_ANDROID = "https://developer.android.com/develop/ui/views/notifications/notification-permission"

REMINDERS = (
    Line(
        "phones",
        Level.REMINDER,
        "iOS: the app has the capability Push Notifications",
        "In Xcode: Signing & Capabilities, + Capability; the App ID has it, too.",
        f"{_APPLE}usernotifications/registering-your-app-with-apns",
    ),
    Line(
        "phones",
        Level.REMINDER,
        "iOS: the app has the capability Background Modes, Remote notifications",
        "In Xcode: Signing & Capabilities, + Capability, Background Modes.",
        f"{_APPLE}usernotifications/pushing-background-updates-to-your-app",
    ),
    Line(
        "phones",
        Level.REMINDER,
        "Android 13 and newer: the app asks for the permission to notify (POST_NOTIFICATIONS)",
        "Try both answers, and the way back through the system's settings.",
        _ANDROID,
    ),
    Line(
        "phones",
        Level.REMINDER,
        "Android: the app's google-services.json is of the project that the service account is of",
        "Compare its project_id with the one in the service account's file.",
        "https://firebase.google.com/docs/cloud-messaging/android/client",
    ),
    Line(
        "phones",
        Level.REMINDER,
        "a reminder was seen on a real iPhone and on a real Android phone, with the screen locked",
        "Simulators do not behave like production push.",
        f"{_APPLE}usernotifications/testing-notifications-using-the-push-notification-console",
    ),
)
