"""The operators' commands. `cli.py` puts them together."""
