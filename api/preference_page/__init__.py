"""The hosted preference page: what a person wants to be told, without an app and without a script."""
