"""The tables. Invariants are constraints first, code second."""

from db.models import events, operations, people, pushes  # noqa: F401 -- a foreign key finds its table by name
