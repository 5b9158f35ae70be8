"""Housekeeping: what lost its workflow, and what was kept long enough."""
