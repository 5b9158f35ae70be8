"""`cli.py doctor`."""
