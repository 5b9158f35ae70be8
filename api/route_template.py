"""Which route served a request, by its template: what was asked for may hold ids, and has no end of values."""

from starlette.types import Scope

UNMATCHED = "unmatched"


def route_template(scope: Scope) -> str:
    """Name the route that took a request. Of a router inside of another, FastAPI keeps the whole template apart."""
    whole = scope.get("fastapi", {}).get("effective_route_context")
    template = getattr(whole or scope.get("route"), "path_format", None)
    return UNMATCHED if template is None else f"{scope.get('root_path', '')}{template}"
