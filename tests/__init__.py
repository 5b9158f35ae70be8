"""Tests on real parts: PostgreSQL, Temporal, sockets."""
