"""The rules, which need neither clock nor server."""
