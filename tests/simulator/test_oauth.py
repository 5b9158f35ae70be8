"""The token endpoint verifies what it is given."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import google.auth.transport.requests
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from firebase_admin import credentials  # type: ignore[import-untyped]  # ships no types

from simulator import Behaviour, Simulator
from simulator.settings import private_pem
from tests.simulator.tokens import GRANT, assertion, service_account, trusting

OTHER_KEY = private_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)).decode()


@pytest.fixture
async def client(sim: Simulator, tls: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the token endpoint."""
    async with httpx.AsyncClient(base_url=sim.environment["FCM_URL"], verify=tls) as client:
        yield client


async def test_firebase_admins_credential_gets_an_access_token(sim: Simulator) -> None:
    credential = credentials.Certificate(sim.environment["FCM_SERVICE_ACCOUNT_FILE"]).get_credential()
    transport = google.auth.transport.requests.Request()
    transport.session.trust_env = False  # REQUESTS_CA_BUNDLE would win over `verify`
    transport.session.verify = sim.environment["FCM_CA_FILE"]
    await asyncio.to_thread(credential.refresh, transport)
    transport.session.close()

    assert credential.token.startswith("ya29.")
    async with httpx.AsyncClient(base_url=sim.environment["FCM_URL"], verify=trusting(sim)) as client:
        answer = await client.post(
            "/v1/projects/fastbell-demo/messages:send",
            json={"message": {"token": "x", "data": {}}},
            headers={"authorization": f"Bearer {credential.token}"},
        )
    assert answer.status_code == 200


async def test_a_right_assertion_gets_a_bearer_token(sim: Simulator, client: httpx.AsyncClient) -> None:
    answer = await client.post("/token", data={"grant_type": GRANT, "assertion": assertion(sim)})

    granted = answer.json()
    assert (answer.status_code, granted) == (
        200,
        {"access_token": granted["access_token"], "expires_in": 3600, "token_type": "Bearer"},
    )


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"iss": "someone@else"}, "invalid_grant"),
        ({"aud": "https://elsewhere/token"}, "invalid_grant"),
        ({"exp": int(time.time()) - 10}, "invalid_grant"),
        ({"exp": int(time.time()) + 7200}, "invalid_grant"),
        ({"scope": "https://www.googleapis.com/auth/drive"}, "invalid_scope"),
        (
            {"key": private_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)).decode()},
            "invalid_grant",
        ),
    ],
)
async def test_a_wrong_assertion_is_refused(
    sim: Simulator, client: httpx.AsyncClient, claims: dict[str, Any], error: str
) -> None:
    answer = await client.post("/token", data={"grant_type": GRANT, "assertion": assertion(sim, **claims)})

    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_another_grant_type_is_refused(sim: Simulator, client: httpx.AsyncClient) -> None:
    answer = await client.post("/token", data={"grant_type": "password", "assertion": assertion(sim)})

    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")


async def test_an_access_token_ends_with_its_lifetime(tmp_path: Path) -> None:
    behaviour = Behaviour(access_token_lifetime=timedelta(0))
    async with (
        Simulator.start(run_dir=tmp_path, behaviour=behaviour) as sim,
        httpx.AsyncClient(base_url=sim.environment["FCM_URL"], verify=trusting(sim)) as client,
    ):
        granted = await client.post("/token", data={"grant_type": GRANT, "assertion": assertion(sim)})
        answer = await client.post(
            "/v1/projects/fastbell-demo/messages:send",
            json={},
            headers={"authorization": f"Bearer {granted.json()['access_token']}"},
        )

    assert granted.json()["expires_in"] == 0
    assert answer.status_code == 401
    assert answer.json()["error"]["details"][0]["reason"] == "ACCESS_TOKEN_EXPIRED"


async def test_the_endpoint_can_be_down_for_a_number_of_requests(sim: Simulator, client: httpx.AsyncClient) -> None:
    fault = sim.faults.add(provider="fcm", fault="oauth_down", count=2, status=500)

    statuses = [
        (await client.post("/token", data={"grant_type": GRANT, "assertion": assertion(sim)})).status_code
        for _ in range(3)
    ]

    assert statuses == [500, 500, 200]
    assert (fault.struck, fault.is_over) == (2, True)


def test_the_service_account_names_the_simulators_endpoint(sim: Simulator) -> None:
    account = service_account(sim)

    assert account["token_uri"] == f"{sim.environment['FCM_URL']}/token"
    assert (account["type"], account["project_id"]) == ("service_account", "fastbell-demo")
