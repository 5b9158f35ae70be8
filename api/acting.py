"""Acting for users: what users may call also exists below `/v1/users/{user_id}/`, for the scope `service`.

Both are served by the same handlers; `UserCaller` (`api/dependencies.py`) is the user in either case. `{user_id}` is
one segment of the path as it was sent, so `%2F` belongs to the id, and a bare slash does not.
"""

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, FastAPI, Path, Security
from pydantic import AfterValidator
from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

from api.dependencies import service
from api.fields import printable
from api.http.auth import LONGEST_USER_ID
from api.http.problem_types import responses

PREFIX = (
    "/v1/users/{user_id:encoded}"  # of every route about a user; `RawUserIds` keeps the id encoded until it matched
)
UserIdInPath = Annotated[
    str,
    Path(min_length=1, max_length=LONGEST_USER_ID, description="Percent-encoded; a slash in it is `%2F`."),
    AfterValidator(printable),
]


class EncodedSegment(Convertor[str]):
    """A segment that was left percent-encoded. What is not UTF-8 becomes unprintable, and is refused as such."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        """Decode the segment."""
        return unquote(value, errors="surrogateescape")

    def to_string(self, value: str) -> str:
        """Encode a user id."""
        return quote(value, safe="")


register_url_convertor("encoded", EncodedSegment())


class RawUserIds:
    """Leaves the user id in paths below `/v1/users/` percent-encoded, where the server has decoded the whole path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["path"].startswith("/v1/users/"):
            _, *segments = scope["raw_path"].decode("ascii", "replace").split("/", 4)
            if [unquote(each) for each in segments[:2]] == ["v1", "users"] and len(segments) > 2:
                rest = "".join(f"/{unquote(each)}" for each in segments[3:])
                scope["path"] = f"/v1/users/{segments[2]}{rest}"  # in place: the request log reads the same scope
            else:  # a slash of the prefix was encoded
                scope["path"] = scope["raw_path"].decode("ascii", "replace")
        await self._app(scope, receive, send)


def include_user_routers(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Serve these routes to users themselves, and to services below `/v1/users/{user_id}/`."""
    bare, for_users = _forbidden("act-for-a-user"), _forbidden("not-allowed")
    checks = [Security(service, scopes=["service"]), Depends(_check_id)]
    for router in routers:
        app.include_router(router, prefix="/v1", responses=bare)
    for router in routers:
        app.include_router(router, prefix=PREFIX, dependencies=checks, responses=for_users)


def _forbidden(problem: str) -> dict[int | str, dict[str, Any]]:
    return {403: responses(problem)[403]}


async def _check_id(user_id: UserIdInPath) -> None:
    """Refuse what no token could name."""
