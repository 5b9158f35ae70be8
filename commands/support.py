"""What support asks: `cli.py dead`, pushes that ended unaccepted; `gates`, the routes; `timeline`, of one user."""

import argparse
import sys
from dataclasses import fields
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from commands.context import actor, cell, one_of, print_json, print_list, print_table, query, read, up_to, write
from commands.sign_in import user_id
from db.engine import as_of_one_moment
from db.views import dead_tasks, gates, present, timeline
from db.views.dead_tasks import PushTaskFilter, ShownTask, WholeTask, check_filter
from db.views.gates import ROUTE_STATES, ShownGate, ShownRoute
from domain.kinds import Kind
from domain.problems import NotFound
from domain.push import Environment, Provider, TaskState
from domain.timeline import TimelineItem, TimelinePart
from operations import redrive as redrives
from operations.redrive import MAX_AT_ONCE, Redriven
from operations.redrive import resume as resume_route

_MOST_ITEMS = 1000  # of a timeline
_EPILOG = "Most dead reminders cannot be redriven, because a reminder expires when its fast ends."


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `dead` and `gates` with their own commands, and `timeline`."""
    _add_dead(commands)
    _add_gates(commands)
    _add_timeline(commands)


def _add_dead(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    dead = commands.add_parser("dead", help="push tasks that ended without acceptance", epilog=_EPILOG)
    actions = dead.add_subparsers(required=True, metavar="action")

    listing = actions.add_parser("list", help="list them, the latest due first")
    _add_filter(listing)
    listing.add_argument(
        "--state",
        type=one_of(TaskState),
        default=TaskState.DEAD,
        help="default: dead; others need --user, --conversation or --message",
    )
    listing.add_argument("--limit", type=up_to(MAX_AT_ONCE), default=50, metavar="N", help="at most N (50)")
    listing.set_defaults(command=_list)

    showing = actions.add_parser("show", help="show one with its attempts")
    showing.add_argument("task", type=UUID, metavar="ID")
    showing.set_defaults(command=_show)

    redriving = actions.add_parser("redrive", help="send again; all checks run again", epilog=_EPILOG)
    redriving.add_argument("--task", type=UUID, metavar="ID", help="only this one, without a filter")
    _add_filter(redriving)
    redriving.add_argument("--all", action="store_true", help="all dead ones, instead of a filter")
    redriving.add_argument(
        "--limit", type=up_to(MAX_AT_ONCE), metavar="N", help="at most N; needed with a filter or --all"
    )
    redriving.add_argument("--dry-run", action="store_true", help="only show what would happen")
    redriving.set_defaults(command=_redrive, parser=redriving)
    for each in (listing, showing, redriving):
        each.add_argument("--json", action="store_true", help="print JSON")


def _list(arguments: argparse.Namespace) -> int:
    wanted = _wanted(arguments)
    check_filter(wanted)
    tasks = read(lambda db: dead_tasks.matching(db, wanted, None, arguments.limit))
    return print_list(arguments, tasks, ("TASK", "DUE", "STATE", "ROUTE", "TRIES", "REASON", "USER", "REDRIVE"), _line)


def _show(arguments: argparse.Namespace) -> int:
    task = read(lambda db: dead_tasks.whole(db, arguments.task))
    if task is None:
        raise NotFound("push task")
    if arguments.json:
        print_json(task)
    else:
        _print(task)
    return 0


def _redrive(arguments: argparse.Namespace) -> int:
    parser: argparse.ArgumentParser = arguments.parser
    wanted = _wanted(arguments)
    filtered = wanted != PushTaskFilter()
    if arguments.task is None:
        if filtered == arguments.all or arguments.limit is None:
            parser.error("give --task, or --limit with a filter or --all")
        mode = redrives.RedriveMode.REHEARSAL if arguments.dry_run else redrives.RedriveMode.REAL
        result = query(lambda sessions: redrives.redrive_matching(sessions, wanted, arguments.limit, actor(), mode))
    else:
        if filtered or arguments.all or arguments.limit is not None or arguments.dry_run:
            parser.error("--task allows no other option; `dead show` says whether it can be redriven")
        write(lambda db: redrives.redrive(db, arguments.task, actor()))
        result = Redriven(1, {}, limit_reached=False)
    if arguments.json:
        print_json(result)
        return 0
    rows = [("would be redriven" if arguments.dry_run else "redriven", result.redriven)]
    rows += [(f"stays dead: {reason}", count) for reason, count in sorted(result.withheld.items())]
    print_table(("WHAT HAPPENED" if not arguments.dry_run else "WHAT WOULD HAPPEN", "PUSH TASKS"), rows)
    return 0


def _print(task: WholeTask) -> None:
    for field in fields(task.task):
        print(f"{field.name.replace('_', ' ') + ':':17} {cell(getattr(task.task, field.name))}")
    print()
    attempts = [(a.number, a.started_at, a.outcome, a.reason, a.latency_ms, a.provider_id) for a in task.attempts]
    print_table(("ATTEMPT", "STARTED", "OUTCOME", "REASON", "MS", "PROVIDER ID"), attempts)
    if task.actions:
        print()
        print_table(("AT", "WHO", "DID"), [(action.at, action.actor, action.action) for action in task.actions])


def _line(task: ShownTask) -> tuple[object, ...]:
    route = "/".join(filter(None, (task.provider, task.app_id, task.environment)))
    redrive = task.redrive_refused or "possible"
    what = (task.task_id, task.due_at, task.state, route)
    return (*what, task.attempt_count, task.last_reason, task.user_id, redrive)


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--provider", type=one_of(Provider), metavar="P", help="apns or fcm")
    parser.add_argument("--app", dest="app_id", metavar="ID")
    parser.add_argument("--environment", type=one_of(Environment), metavar="E", help="production or sandbox")
    parser.add_argument("--kind", type=one_of(Kind), metavar="K", help="reminder, message or test")
    parser.add_argument("--reason", metavar="R", help="the last reason, an exact match")
    parser.add_argument("--user", dest="user_id", type=user_id, metavar="ID")
    parser.add_argument(
        "--conversation", dest="conversation_id", type=UUID, metavar="ID", help="a conversation or fasting session"
    )
    parser.add_argument("--message", dest="message_id", type=UUID, metavar="ID")
    parser.add_argument("--due-from", type=_instant, metavar="T", help="an instant such as 2026-01-31T18:00:00Z")
    parser.add_argument("--due-to", type=_instant, metavar="T", help="exclusive")


def _wanted(arguments: argparse.Namespace) -> PushTaskFilter:
    given = vars(arguments)
    return PushTaskFilter(**{field.name: given[field.name] for field in fields(PushTaskFilter) if field.name in given})


def _instant(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise argparse.ArgumentTypeError("must be an instant with an offset, such as 2026-01-31T18:00:00Z")
    return at.astimezone(UTC)


def _add_gates(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    actions = commands.add_parser("gates", help="routes to phones and their token-error cutoffs").add_subparsers(
        required=True, metavar="action"
    )
    listing = actions.add_parser("list", help="list the routes, worker by worker, and unknown reasons of providers")
    listing.set_defaults(command=_list_routes)
    resuming = actions.add_parser("resume", help="end a token-error cutoff, so that its route sends again")
    resuming.add_argument("brake", type=UUID, metavar="ID", help="from the column CUTOFF of `gates list`")
    resuming.set_defaults(command=_resume_route)
    for each in (listing, resuming):
        each.add_argument("--json", action="store_true", help="print JSON")


def _list_routes(arguments: argparse.Namespace) -> int:
    routes = read(gates.shown)
    if arguments.json:
        print_json(routes)
        return 0
    titles = ("ROUTE", "WORKER", "STATE", "REASON", "UNTIL", "WAITING", "IN FLIGHT", "RATE", "CUTOFF")
    print_table(titles, [line for route in routes.items for line in _route_lines(route)])
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
            [_route_errors(route) for route in refused],
        )
    return 0


def _resume_route(arguments: argparse.Namespace) -> int:
    resumed = write(lambda db: resume_route(db, arguments.brake, actor()))
    if arguments.json:
        print_json(resumed)
    else:
        print(f"Resumed. {resumed.token_errors} of {resumed.answers} users had token errors ({resumed.reason}).")
    return 0


def _route_lines(route: ShownRoute) -> list[tuple[object, ...]]:
    name = _route_name(route)
    brake = None if route.brake is None else f"{route.brake.id} ({route.brake.reason})"
    if not route.workers:
        return [(name, *[None] * 7, brake)]
    return [
        (name, gate.worker_id, ROUTE_STATES[gate.state], gate.reason, gate.until, *_load(gate), brake)
        for gate in route.workers
    ]


def _load(gate: ShownGate) -> tuple[object, ...]:
    return gate.waiting, gate.in_flight, "no limit" if gate.rate is None else f"{gate.rate:g}/s"


def _route_errors(route: ShownRoute) -> tuple[object, ...]:
    assert route.errors is not None
    each = route.errors
    return _route_name(route), each.pushes, each.users, each.largest_user_id, each.largest_pushes


def _route_name(route: ShownRoute) -> str:
    return "/".join(filter(None, (route.provider, route.app_id, route.environment)))


def _add_timeline(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    timeline = commands.add_parser("timeline", help="what happened to a user's pushes, and why")
    timeline.add_argument("--user", required=True, type=user_id, metavar="ID")
    timeline.add_argument("--session", type=UUID, metavar="ID", help="only this fasting session and its reminders")
    timeline.add_argument("--message", type=UUID, metavar="ID", help="only this message")
    timeline.add_argument("--limit", type=up_to(_MOST_ITEMS), default=50, metavar="N", help="the latest N (50)")
    timeline.add_argument("--json", action="store_true", help="print JSON: the present, then the latest first")
    timeline.set_defaults(command=_timeline)


def _timeline(arguments: argparse.Namespace) -> int:
    part = TimelinePart(arguments.session, arguments.message)

    async def ask(db: AsyncSession) -> tuple[list[TimelineItem], list[TimelineItem]]:
        await as_of_one_moment(db)
        now = await present.of_user(db, arguments.user, part)
        return now, await timeline.of_user(db, arguments.user, part, None, arguments.limit)

    now, past = read(ask)
    if arguments.json:
        print_json(now + past)
    else:
        _print_timeline(now, past)
    if not now and not past:
        about = " in this part of their timeline" if part != TimelinePart() else ""
        print(f"Nothing is known of {cell(arguments.user)}{about}.", file=sys.stderr)
    return 0


def _print_timeline(now: list[TimelineItem], past: list[TimelineItem]) -> None:
    """Print the present, then what happened, in order."""
    if now:
        print(f"Now ({cell(now[0].at)}):")
        for item in now:
            print(f"  {cell(item.text)}")
        print("\nWhat happened:")
    for item in reversed(past):
        print(f"{cell(item.at)}  {cell(item.text)}")
