"""Messages, from acceptance to the phone."""
