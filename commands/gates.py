"""`cli.py gates`: the state of each route to phones, and the end of a token-error cutoff."""

import argparse
from uuid import UUID

from commands.context import actor, print_json, print_table, read, write
from db.views import gates
from db.views.gates import ROUTE_STATES, ShownGate, ShownRoute
from operations.redrive import resume as resume_route


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `gates` with its own commands."""
    actions = commands.add_parser("gates", help="routes to phones and their token-error cutoffs").add_subparsers(
        required=True, metavar="action"
    )
    listing = actions.add_parser("list", help="list the routes, worker by worker, and unknown reasons of providers")
    listing.set_defaults(command=_list)
    resuming = actions.add_parser("resume", help="end a token-error cutoff, so that its route sends again")
    resuming.add_argument("brake", type=UUID, metavar="ID", help="from the column CUTOFF of `gates list`")
    resuming.set_defaults(command=_resume)
    for each in (listing, resuming):
        each.add_argument("--json", action="store_true", help="print JSON")


def _list(arguments: argparse.Namespace) -> int:
    routes = read(gates.shown)
    if arguments.json:
        print_json(routes)
        return 0
    titles = ("ROUTE", "WORKER", "STATE", "REASON", "UNTIL", "WAITING", "IN FLIGHT", "RATE", "CUTOFF")
    print_table(titles, [line for route in routes.items for line in _lines(route)])
    if routes.unknown_refusals:
        print()
        unknown = [
            (each.provider, each.status, each.reason, each.count, f"{each.last_at:%Y-%m-%d %H:%M:%S}Z")
            for each in routes.unknown_refusals
        ]
        print_table(("PROVIDER", "STATUS", "UNKNOWN REASON", "TIMES", "LAST"), unknown)
    if refused := [route for route in routes.items if route.errors]:
        print()
        print_table(
            ("ROUTE", "REFUSED PUSHES", "USERS", "USER WITH MOST", "PUSHES OF THAT USER"),
            [_errors(route) for route in refused],
        )
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    resumed = write(lambda db: resume_route(db, arguments.brake, actor()))
    if arguments.json:
        print_json(resumed)
    else:
        print(f"Resumed. {resumed.token_errors} of {resumed.answers} users had token errors ({resumed.reason}).")
    return 0


def _lines(route: ShownRoute) -> list[tuple[object, ...]]:
    name = _name(route)
    brake = None if route.brake is None else f"{route.brake.id} ({route.brake.reason})"
    if not route.workers:
        return [(name, *[None] * 7, brake)]
    return [
        (name, gate.worker_id, ROUTE_STATES[gate.state], gate.reason, gate.until, *_load(gate), brake)
        for gate in route.workers
    ]


def _load(gate: ShownGate) -> tuple[object, ...]:
    return gate.waiting, gate.in_flight, "no limit" if gate.rate is None else f"{gate.rate:g}/s"


def _errors(route: ShownRoute) -> tuple[object, ...]:
    assert route.errors is not None
    each = route.errors
    return _name(route), each.pushes, each.users, each.largest_user_id, each.largest_pushes


def _name(route: ShownRoute) -> str:
    return "/".join(filter(None, (route.provider, route.app_id, route.environment)))
