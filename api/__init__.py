"""The HTTP API: one router file per resource."""
