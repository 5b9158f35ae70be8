"""The provider says no."""


class Rejection(Exception):
    """A refused APNs push: status, reason, and for a dead token when it died."""

    def __init__(self, status: int, reason: str, *, timestamp_ms: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.timestamp_ms = timestamp_ms
