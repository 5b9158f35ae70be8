"""What `local.py` is made of: settings of a run, its parts, its demonstration."""
