"""`cli.py dead`: list, show and redrive push tasks that ended without acceptance."""

import argparse
from dataclasses import fields
from datetime import UTC, datetime
from uuid import UUID

from commands.context import actor, cell, print_json, print_list, print_table, query, read, up_to, write
from db.views import dead_tasks
from db.views.dead_tasks import PushTaskFilter, ShownTask, WholeTask, check_filter
from domain.kinds import Kind
from domain.problems import NotFound
from domain.push import Environment, Provider, TaskState
from operations import redrive as redrives
from operations.redrive import MAX_AT_ONCE, Redriven

_EPILOG = "Most dead reminders cannot be redriven, because a reminder expires when its fast ends."


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `dead` with its own commands."""
    dead = commands.add_parser("dead", help="push tasks that ended without acceptance", epilog=_EPILOG)
    actions = dead.add_subparsers(required=True, metavar="action")

    listing = actions.add_parser("list", help="list them, the latest due first")
    _add_filter(listing)
    listing.add_argument(
        "--state",
        type=TaskState,
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
    parser.add_argument("--provider", type=Provider, metavar="P", help="apns or fcm")
    parser.add_argument("--app", dest="app_id", metavar="ID")
    parser.add_argument("--environment", type=Environment, metavar="E", help="production or sandbox")
    parser.add_argument("--kind", type=Kind, metavar="K")
    parser.add_argument("--reason", metavar="R", help="the last reason, an exact match")
    parser.add_argument("--user", dest="user_id", metavar="ID")
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
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise argparse.ArgumentTypeError("an instant needs an offset, such as 2026-01-31T18:00:00Z")
    return at.astimezone(UTC)
