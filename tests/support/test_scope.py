"""Nothing under /v1/support is open to anybody without the scope, whichever routes there are."""

from uuid import uuid4

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from tests.stack import Stack, User, make_app

PREFIX = "/v1/support"


async def test_every_support_route_needs_the_scope(stack: Stack, alice: User, carol: User) -> None:
    app = make_app(stack.place)
    routes = _support_routes(app)
    document = app.openapi()["paths"]
    assert len(routes) >= 11

    for path, method in routes:
        where = path.replace("{user_id:path}", "anna")
        for name in ("task_id:uuid", "task_id", "brake_id", "test_push_id"):
            where = where.replace("{" + name + "}", str(uuid4()))
        assert "{" not in where, "give this path's parameter a value here"
        nobody = await stack.http.request(method, where)
        somebody = await alice.call(method, where)
        supporter = await carol.call(method, where)
        assert (nobody.status_code, somebody.status_code) == (401, 403), (method, path)
        assert somebody.json()["type"] == "urn:fastbell:problem:not-allowed"
        assert supporter.status_code not in {401, 403}, (method, path)
        told = document[path.replace(":uuid", "").replace(":path", "")][method.lower()]
        assert told["security"] == [{"HTTPBearer": ["support"]}]
        assert "403" in told["responses"]


async def test_other_scopes_do_not_do(stack: Stack) -> None:
    user = stack.user(None, "service", "supporter", "Support")

    assert (await user.call("GET", f"{PREFIX}/push-tasks")).status_code == 403


def _support_routes(app: FastAPI) -> list[tuple[str, str]]:
    found = [(route.path, method) for route in iter_route_contexts(app.routes) for method in route.methods or ()]
    return sorted((path, method) for path, method in found if path and path.startswith(PREFIX))
