"""Gates and brakes are seen as the workers report them, and a brake is let go of once, by name."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from db import support_actions, workers
from domain.push import Environment, Provider, Route
from push.limiter.registry import RouteLimiters
from push.limiter.settings import Limits
from tests.console.visits import visit, words
from tests.stack import Stack, User, iphone
from tests.support.cli import run
from tests.support.dead import dead_task

ROUTE = Route(Provider.APNS, "app.seen.by.support", Environment.SANDBOX)


async def test_a_route_shows_each_workers_gate_and_its_brake(stack: Stack, carol: User) -> None:
    worker_id, gates = uuid4(), RouteLimiters({Provider.APNS: Limits(concurrency=10, rate=50.0)})
    gates.at(ROUTE)
    async with stack.sessions.begin() as db:
        await workers.beat(db, worker_id, gates.report(), lives=10)
    brake_id = await _engage(stack)

    listed = (await carol.call("GET", "/v1/support/gates")).json()

    assert listed["next_cursor"] is None
    [route] = [each for each in listed["items"] if each["app_id"] == ROUTE.app_id]
    assert (route["provider"], route["environment"]) == ("apns", "sandbox")
    [gate] = route["workers"]
    assert gate["worker_id"] == str(worker_id)
    assert gate.keys() == {"worker_id", "seen_at", "state", "reason", "until", "waiting", "in_flight", "rate"}
    assert (gate["waiting"], gate["in_flight"]) == (0, 0)
    assert route["brake"]["id"] == str(brake_id)
    assert (route["brake"]["reason"], route["brake"]["token_errors"]) == ("BadDeviceToken", 90)
    async with stack.sessions.begin() as db:
        await workers.leave(db, worker_id)
    await carol.call("POST", f"/v1/support/brakes/{brake_id}/resume")


async def test_it_is_seen_how_many_users_errors_belong_to_and_to_whom_most(stack: Stack, carol: User) -> None:
    bob, mallory = stack.user(f"bob-{uuid4()}"), stack.user(f"mallory-{uuid4()}")
    of_bob, of_mallory = await dead_task(bob, iphone()), [*await dead_task(mallory, *(iphone() for _ in range(9)))]
    before = await _errors(carol)
    refuse = "UPDATE push_tasks SET state = 'unregistered', last_reason = 'BadDeviceToken' WHERE task_id = ANY(:ids)"
    async with stack.sessions.begin() as db:
        await db.execute(text(refuse), {"ids": of_bob + of_mallory})

    after = await _errors(carol)
    _, table, _ = await run(stack, "gates", "list")
    page = words(await (await visit(stack, "carol")).get("/console/"))

    assert after["users"] == before.get("users", 0) + 2
    assert after["pushes"] == before.get("pushes", 0) + 10
    assert (after["largest_user_id"], after["largest_pushes"]) == (mallory.user_id, 9)
    assert "USER WITH MOST" in table
    counts = [str(after["pushes"]), str(after["users"]), mallory.user_id, "9"]
    assert ["apns/production", *counts] in [line.split() for line in table.splitlines()]
    assert " ".join(["APNs", *counts]) in page
    async with stack.sessions.begin() as db:
        await db.execute(text("DELETE FROM push_tasks WHERE task_id = ANY(:ids)"), {"ids": of_bob + of_mallory})


async def test_refusals_that_no_table_knows_are_counted_over_all_live_workers(stack: Stack, carol: User) -> None:
    reason = f"reason-{uuid4()}"
    kind = {"provider": "fcm", "status": 400, "reason": reason}
    heard = {2: "2026-11-25T10:00:00Z", 3: "2026-11-25T09:00:00Z"}
    refusals = [kind | {"count": count, "last_at": last_at} for count, last_at in heard.items()]
    seen = {uuid4(): {"gates": [], "unknown_refusals": [refusal]} for refusal in refusals}
    async with stack.sessions.begin() as db:
        for worker_id, report in seen.items():
            await workers.beat(db, worker_id, report, lives=10)

    listed = (await carol.call("GET", "/v1/support/gates")).json()

    found = [each for each in listed["unknown_refusals"] if each["reason"] == reason]
    assert found == [kind | {"count": 5, "last_at": heard[2]}]
    async with stack.sessions.begin() as db:
        for worker_id in seen:
            await workers.leave(db, worker_id)


async def test_a_brake_is_resumed_once_and_it_is_noted_by_whom(stack: Stack, carol: User) -> None:
    brake_id, dave = await _engage(stack), stack.user(None, "support")

    first = await carol.call("POST", f"/v1/support/brakes/{brake_id}/resume")
    second = await dave.call("POST", f"/v1/support/brakes/{brake_id}/resume")

    assert (first.status_code, first.json()["resumed_by"]) == (200, carol.user_id)
    assert (second.status_code, second.json()["type"]) == (409, "urn:fastbell:problem:brake-resumed")
    assert (await carol.call("POST", f"/v1/support/brakes/{uuid4()}/resume")).status_code == 404
    async with stack.sessions() as db:
        [action] = await support_actions.about(db, brake_id)
    assert (action.actor, action.action) == (carol.user_id, "resume")


async def _errors(support: User) -> dict[str, Any]:
    items = (await support.call("GET", "/v1/support/gates")).json()["items"]
    usual = ("apns", None, "production")
    [route] = [each for each in items if (each["provider"], each["app_id"], each["environment"]) == usual] or [
        {"errors": None}
    ]
    errors: dict[str, Any] = route["errors"] or {}
    return errors


async def _engage(stack: Stack) -> UUID:
    """Engage a route's brake that no other test uses."""
    engage = text(
        "INSERT INTO brakes (provider, app_id, environment, reason, token_errors, answers) "
        "VALUES ('apns', :app_id, 'sandbox', 'BadDeviceToken', 90, 100) RETURNING id"
    )
    async with stack.sessions.begin() as db:
        brake_id: UUID = (await db.execute(engage, {"app_id": ROUTE.app_id})).scalar_one()
        return brake_id
