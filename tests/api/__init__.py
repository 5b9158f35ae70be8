"""The API over sockets, on real PostgreSQL; no worker runs."""
