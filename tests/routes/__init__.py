"""Limits, breaker and cutoff of a route, over the whole service: real sockets, PostgreSQL, and Temporal if needed."""
