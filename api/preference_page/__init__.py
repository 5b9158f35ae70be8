"""The hosted preference page: notification preferences without an app and without a script."""
