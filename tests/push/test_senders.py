"""Apps: which sender, and which route, a phone's app comes to."""

from domain.push import Environment, Provider, Route
from push.registry import SenderRegistry


def test_where_no_app_has_credentials_of_its_own_all_take_the_default_route() -> None:
    apps = SenderRegistry({})

    routes = {apps.route(Provider.FCM, app_id, Environment.PRODUCTION) for app_id in (None, "invented", "other")}

    assert routes == {Route(Provider.FCM, None, Environment.PRODUCTION)}


def test_where_apps_have_credentials_each_takes_its_own_route() -> None:
    apps = SenderRegistry({}, frozenset({"pro"}))

    assert apps.route(Provider.FCM, "pro", Environment.SANDBOX) == Route(Provider.FCM, "pro", Environment.SANDBOX)
