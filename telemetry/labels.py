"""Label values: words from outside are told apart only so far, so that nobody can make series without end."""

from collections.abc import Collection
from dataclasses import replace

from domain.push import Provider, Route

MOST = 200  # different values of one label; our own reasons are some hundred
OTHERS = "others"


class Capped:
    """The values of one label; those that come after the first two hundred are one."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str | None) -> str:
        """Give the value for the label; of nothing an empty one."""
        if not value or value in self._known:
            return value or ""
        if len(self._known) >= self._most:
            return OTHERS
        self._known.add(value)
        return value


reason = Capped()
app = Capped()


def of_route(route: Route) -> tuple[str, str, str]:
    """Give provider, app and environment; the default app has no name."""
    return route.provider.value, app(route.app_id), route.environment.value


def known(route: Route, configured: Collection[tuple[Provider, str | None]]) -> Route:
    """Give the route to tell of: an app that has credentials for no provider at all counts as the default one.

    Gauges of gates and of the fleet both go by it, for alerts join them.
    """
    if any(route.app_id == app_id for _, app_id in configured):
        return route
    return replace(route, app_id=None)
