"""A Prometheus server watches the running product. The last test breaks everything."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from simulator import Simulator
from tests.metrics.conftest import Watched
from tests.metrics.pages import by, samples
from tests.metrics.prometheus import DASHBOARDS, Prometheus, alerts, names, panels
from tests.stack import User, android, eventually, iphone, uncommitted


@dataclass(frozen=True)
class Trouble:
    """What the first panel says."""

    not_delivered: bool
    delayed: bool


pytestmark = [pytest.mark.long, pytest.mark.timeout(150)]
# A receiver that has taken nothing for an hour, a delivery of which nothing came, a person who is not yet erased
LONG_IN_TROUBLE = (
    """INSERT INTO webhooks (id, url, secret, position, failing_since, rests_until)
       VALUES (:id, 'https://gone.example/', :secret, 0, now() - interval '1 hour', now() + interval '1 hour')""",
    """INSERT INTO webhook_deliveries (webhook_id, type, state, gives_up_at)
       VALUES (:id, 'push.accepted', 'dead', now())""",
    """INSERT INTO erasures (digest, user_id, requested_at, next_attempt_at)
       VALUES (:digest, :user, now() - interval '2 hours', now() + interval '1 hour')""",
)

ONLY_IN_TROUBLE = {
    "fastbell_fleet_misconfigured_users",
    "fastbell_unknown_refusals_total",
    "temporal_request_failure_total",
}


async def test_nothing_is_raised_while_all_is_well(watched: Watched) -> None:
    await eventually(lambda: _scraped(watched.prometheus))

    assert await watched.prometheus.raised() == set()
    assert await _trouble(watched.prometheus) == Trouble(not_delivered=False, delayed=False)


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: str(board.stem))
async def test_every_expression_of_a_dashboard_returns_a_series(watched: Watched, board: Path) -> None:
    async def empty() -> list[tuple[str, str]]:
        return [each for each in panels(board) if not await watched.prometheus.series(each[1])]

    async def none_empty() -> bool:
        return not await empty()

    try:
        await eventually(none_empty)
    except TimeoutError:
        pytest.fail(str(await empty()))


async def test_every_metric_that_alerts_and_dashboards_name_is_there(watched: Watched) -> None:
    async def missing() -> set[str]:
        return names() - await watched.prometheus.names()

    async def only_those_of_trouble() -> bool:
        return await missing() <= ONLY_IN_TROUBLE

    assert names() > ONLY_IN_TROUBLE | {"up", "process_resident_memory_bytes", "temporal_request_total"}
    try:
        await eventually(only_those_of_trouble)
    except TimeoutError:
        pytest.fail(str(await missing()))


async def test_requests_are_counted_by_the_route_that_served_them(watched: Watched) -> None:
    assert (await watched.product.stack.user().call("GET", f"/nowhere/{uuid4()}")).status_code == 404

    await watched.product.stack.http.get("/console/sign-in")

    counted = by(samples(await watched.product.metrics_of_api()), "fastbell_http_requests_total", "route", "status")

    assert counted["/v1/device-tokens/{installation_id}", "2xx"] == len(watched.life.phones) + 1  # one changed hands
    assert counted["unmatched", "4xx"] == counted["/console/sign-in", "2xx"] == 1
    assert not [route for route, _ in counted if "nowhere" in route]


async def test_every_fault_raises_its_alert(watched: Watched, simulator: Simulator) -> None:
    stack, seen = watched.product.stack, set[str]()

    def saw(*names: str) -> Callable[[], Any]:
        async def all_seen() -> bool:
            seen.update(await watched.prometheus.raised())
            return seen.issuperset(names)

        return all_seen

    with watched.ca_file.open("ab") as file:
        file.write(_certificate(timedelta(days=13)))
    odd, slow, keyless, apples = android(), android(), android(), [iphone() for _ in range(6)]
    fcm: dict[str, Any] = {"provider": "fcm", "fault": "answer"}
    simulator.faults.add(**fcm, token=odd.token, status=400, error_code="NEVER_HEARD_OF")
    simulator.faults.add(provider="fcm", token=slow.token, fault="slow", delay=6)
    simulator.faults.add(**fcm, token=keyless.token, error_code="THIRD_PARTY_AUTH_ERROR")
    wrong_here = [android() for _ in range(12)]
    for phone in wrong_here:
        simulator.faults.add(**fcm, token=phone.token, status=400, error_code="INVALID_ARGUMENT")
    simulator.faults.add(**fcm, status=503, error_code="UNAVAILABLE")
    wrong: dict[str, Any] = {"provider": "apns", "fault": "answer"}
    simulator.faults.add(**wrong, environment="sandbox", status=400, reason="BadDeviceToken")
    simulator.faults.add(**wrong, environment="production", status=403, reason="InvalidProviderToken")
    for phones in ([odd, slow], [keyless], *([phone] for phone in (*apples, *wrong_here))):
        await _remind(stack.user(), *phones, due_in=1.0)
    for many in [stack.user() for _ in range(25)]:
        await many.register(iphone(), environment="sandbox")
        await many.start_fast(due_in=1.0)
    for _ in range(8):
        await _remind(stack.user(), android(), due_in=2.0)
    learned = [android() for _ in range(10)]
    await stack.user().register(*learned)
    await stack.user().register(*learned)
    await eventually(saw("ProviderDown", "Misconfigured", "CertificateExpiring", "UnknownRefusal"), within=30)
    await eventually(
        saw("PushesRejected", "RejectionSeen", "PushesRefused", "DeathSeen", "TokensTransferred"), within=30
    )
    await eventually(lambda: stack.rows("SELECT 1 FROM brakes"))

    watched.product.to_temporal.cut()
    lost = await stack.user().start_fast(due_in=3600, minutes=(30,))
    async with stack.sessions.begin() as db:  # ten minutes pass
        await db.execute(text("UPDATE outbox SET created_at = created_at - interval '10 minutes'"))
        waits = "due_at = due_at - interval '10 minutes', next_attempt_at = next_attempt_at - interval '10 minutes'"
        await db.execute(text(f"UPDATE push_tasks SET {waits} WHERE state = 'pending'"))
        long_due = "ends_at = ends_at - interval '70 minutes', started_at = now() - interval '9 hours'"
        set_before = "scheduled_at = now() - interval '9 hours'"
        await db.execute(text(f"UPDATE fasting_sessions SET {long_due}, {set_before} WHERE id = :id"), {"id": lost})
        failing = {"id": uuid4(), "secret": "whsec_AAAA", "user": "gone", "digest": b"digest"}
        for statement in LONG_IN_TROUBLE:
            await db.execute(text(statement), failing)
    rest = ("TokensDying", "RemindersLate", "BrakeEngaged", "PushesDead", "TemporalDownAcceptanceFine", "OutboxStuck")
    more = ("RemindersUnopened", "WebhookFailing", "WebhookDeliveriesDead", "ErasureStuck")
    await eventually(saw(*rest, *more), within=60)
    assert "AcceptanceFailing" not in seen
    assert await _trouble(watched.prometheus) == Trouble(not_delivered=False, delayed=True)
    assert names() - await watched.prometheus.names() == set()

    async with uncommitted(stack, "LOCK TABLE fasting_sessions IN ACCESS EXCLUSIVE MODE"):
        knocking = asyncio.create_task(_knock(stack.user()))
        await eventually(saw("AcceptanceFailing"), within=30)
        assert "TemporalDownAcceptanceFine" not in await watched.prometheus.raised()
        assert await _trouble(watched.prometheus) == Trouble(not_delivered=True, delayed=True)
        knocking.cancel()

    assert not seen & {"WorkersAbsent", "ApiAbsent", "SignalsUnread", "SweepStopped"}
    watched.product.worker.process.kill()
    watched.product.api.process.kill()
    await eventually(saw("WorkersAbsent", "ApiAbsent", "SignalsUnread", "SweepStopped"), within=20)
    assert await _trouble(watched.prometheus) == Trouble(not_delivered=True, delayed=True)
    assert seen == {rule["alert"] for rule in alerts()}


async def _trouble(prometheus: Prometheus) -> Trouble:
    """Read the panel that tells the one from the other."""
    [board] = [board for board in DASHBOARDS if board.stem == "on-time"]
    values = [await prometheus.value(each) for title, each in panels(board) if title == "Which trouble is it"]
    return Trouble(*map(bool, values))


async def _scraped(prometheus: Prometheus) -> bool:
    """Tell whether both were scraped, and the alerts judged since."""
    up = await prometheus.series("min_over_time(up[2s]) == 1 and on () fastbell_fleet_swept_timestamp_seconds")
    return len(up) == 2


async def _remind(user: User, *phones: Any, due_in: float) -> None:
    await user.register(*phones)
    await user.start_fast(due_in=due_in)


async def _knock(user: User) -> None:
    """Try to start fasts until cancelled."""
    body = {"ends_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    while True:
        await asyncio.gather(*(user.call("PUT", f"/v1/fasting-sessions/{uuid4()}", body) for _ in range(3)))


def _certificate(lives: timedelta) -> bytes:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Old authority")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + lives).sign(key, hashes.SHA256())
    return signed.public_bytes(Encoding.PEM)
