"""What needs a person now, in sentences; nothing where all is well."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from api.console.figures import count, route, seconds
from domain.kinds import Kind
from domain.reasons import why
from domain.signals import Signals
from domain.support import ShownGates, ShownRoute

_LATE = timedelta(minutes=1)  # since when something that should pass at once has waited too long
_NEWS = timedelta(hours=1)  # for how long an answer that no table knows is one


def of(now: Signals, routes: ShownGates) -> list[str]:
    """List them, the worst first."""
    found = []
    if not now.workers:
        found.append("No worker is alive: nothing is sent until one is.")
    for each in routes.items:
        if each.brake is not None:
            found.append(f"The brake on {route(each)} is engaged: nothing is sent there until a person resumes it.")
        elif (shut := [gate for gate in each.workers if gate.state != "closed"]) and _is_waited_for(each, now):
            reason = f" ({shut[0].reason})" if shut[0].reason else ""
            found.append(f"The gate of {route(each)} is shut in {len(shut)} of {len(each.workers)} workers{reason}.")
    oldest = oldest_due_at(now)
    if oldest is not None and now.at - oldest > _LATE:
        found.append(f"A push has been overdue for {seconds(now.at - oldest)}.")
    if now.outbox.oldest_at is not None and now.at - now.outbox.oldest_at > _LATE:
        found.append(
            f"Temporal has been owed a dispatch for {seconds(now.at - now.outbox.oldest_at)}: "
            "it may be away. Requests are accepted meanwhile."
        )
    if now.handoffs.oldest_at is not None and now.at - now.handoffs.oldest_at > _LATE:
        found.append(f"A message has waited {seconds(now.at - now.handoffs.oldest_at)} for its handoff.")
    return found + list(_ended(now)) + _unheard_of(now, routes)


def _ended(now: Signals) -> Iterator[str]:
    """Tell of pushes that ended as none should, or that something of ours keeps from being sent."""
    for each in now.refused:
        of = "1 user" if each.users == 1 else f"{count(each.users)} users"
        pushes = "1 push" if each.pushes == 1 else f"{count(each.pushes)} pushes"
        yield f"{route(each.route)} refused {pushes} of {of} ({each.reason}): {why(each.reason)}"
    if unexpired := sum(each.unexpired for each in now.dead):
        dead = "dead push has" if unexpired == 1 else "dead pushes have"
        yield f"{count(unexpired)} {dead} not expired yet: see whether to redrive."
    if now.rejected:
        were = "push was" if now.rejected == 1 else "pushes were"
        yield f"{count(now.rejected)} {were} refused for a fault of ours within the last hour: see Analytics."


def _unheard_of(now: Signals, routes: ShownGates) -> list[str]:
    if any(now.at - each.last_at < _NEWS for each in routes.unknown_refusals):
        return ["A provider said something that no table of ours knows; see below."]
    return []


def _is_waited_for(gate: ShownRoute, now: Signals) -> bool:
    """Tell whether a push may wait there; a shut gate tries the provider only when one comes.

    The default app's gate serves apps without one of their own, so there another app's push counts, too.
    """
    return any(
        each.behind_gate
        for each in now.backlogs
        if (each.route.provider, each.route.environment) == (gate.provider, gate.environment)
        and gate.app_id in {each.route.app_id, None}
    )


def oldest_due_at(now: Signals) -> datetime | None:
    """Find since when the push that is overdue for longest has been; test pushes do not count."""
    due = (each.oldest_due_at for each in now.backlogs if each.oldest_due_at and each.kind is not Kind.TEST)
    return min(due, default=None)
