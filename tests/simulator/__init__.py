"""The simulator is checked against clients that know nothing of it."""
