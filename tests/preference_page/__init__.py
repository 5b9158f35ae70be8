"""The hosted preference page."""
