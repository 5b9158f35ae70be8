"""The laptop: `make run` and the operators' commands."""
