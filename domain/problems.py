"""What can be wrong with a request, as exceptions that the API turns into problem+json."""

from datetime import timedelta


class Problem(Exception):
    """A request cannot be served as it is."""


class InvalidField(Problem):
    """A field has a value that the rules forbid."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


class NotFound(Problem):
    """Nothing of that kind is the caller's."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"There is no such {kind}.")


class CursorTooOld(Problem):
    """The log no longer holds what came right after the cursor."""

    def __init__(self, horizon: int) -> None:
        super().__init__(
            "The log holds no items so old any more. Nothing is lost: read /v1/conversations with their messages and "
            f"/v1/fasting-sessions anew, then go on from cursor {horizon}."
        )
        self.horizon = horizon


class Conflict(Problem):
    """The request contradicts what was accepted before."""

    def __init__(self, code: str, detail: str, reason: str | None = None) -> None:
        super().__init__(detail)
        self.code = code  # stable, kebab-case: becomes the problem's type
        self.reason = reason  # stable, where one code has several


class Outdated(Problem):
    """The request was made for a revision that is not the newest."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code  # stable, kebab-case: becomes the problem's type


class LimitReached(Problem):
    """So much was asked for lately that this has to wait."""

    def __init__(self, detail: str, retry_after: timedelta, code: str = "too-many-requests") -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.code = code  # stable, kebab-case: becomes the problem's type
