"""The benchmark runs."""
