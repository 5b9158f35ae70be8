"""Fasting reminders, from the API to the phone."""
