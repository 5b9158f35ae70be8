"""The streams that are open in this process, and their source."""
