"""Trouble with access tokens and quotas: nothing is lost, and no token is blamed."""

import pytest

from tests.faults.service import Service, healthy, undisturbed
from tests.stack import android

pytestmark = pytest.mark.long


@pytest.mark.parametrize("reason", ["revoked", "expired"])
async def test_an_access_token_that_ends_costs_no_push(service: Service, reason: str) -> None:
    service.simulator.faults.add(provider="fcm", fault="revoke_access_tokens", reason=reason)

    pushed = await service.remind(healthy())

    assert all((each.state, each.times_received, each.token_active) == ("accepted", [1], True) for each in pushed)
    assert [each for each in pushed if each.phone.provider == "apns" and not undisturbed(each)] == []


async def test_the_token_endpoint_may_be_silent_and_then_down(service: Service) -> None:
    silent = service.simulator.faults.add(provider="fcm", fault="oauth_down", status=None, count=1)
    down = service.simulator.faults.add(provider="fcm", fault="oauth_down", count=2)
    service.simulator.faults.add(provider="fcm", fault="revoke_access_tokens")

    pushed = await service.remind(healthy())

    assert (silent.struck, down.struck) == (1, 2)
    assert all((each.state, each.times_received, each.token_active) == ("accepted", [1], True) for each in pushed)
    assert [each for each in pushed if each.phone.provider == "apns" and not undisturbed(each)] == []


async def test_a_projects_quota_slows_google_alone(service: Service) -> None:
    phone = android()
    service.simulator.faults.add(
        provider="fcm", fault="answer", errorCode="QUOTA_EXCEEDED", quota="project", retry_after=2, count=1
    )

    pushed = await service.remind([phone, *healthy()])

    assert all((each.state, each.times_received, each.token_active) == ("accepted", [1], True) for each in pushed)
    assert [each for each in pushed if each.phone.provider == "apns" and not undisturbed(each)] == []
