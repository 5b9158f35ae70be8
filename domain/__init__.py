"""Plain Python: no I/O, no clock."""
