"""Credentials as a client makes them: provider tokens for APNs, assertions and access tokens for FCM."""

import json
import ssl
import time
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from simulator import Simulator

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
MESSAGING = "https://www.googleapis.com/auth/firebase.messaging"


def trusting(sim: Simulator) -> ssl.SSLContext:
    """A client's TLS context that trusts the simulator's authority and nothing else."""
    return ssl.create_default_context(cafile=sim.environment["APNS_CA_FILE"])


def provider_token(
    sim: Simulator,
    *,
    app: str = "demo",
    key: str | None = None,
    key_id: str | None = None,
    team: str | None = None,
    age: float = 0,
) -> str:
    """Mint an APNs provider token, right unless told otherwise; `age` in seconds."""
    environment = sim.environments[app]
    return jwt.encode(
        {"iss": team or environment["APNS_TEAM_ID"], "iat": int(time.time() - age)},
        key or Path(environment["APNS_KEY_FILE"]).read_text(),
        algorithm="ES256",
        headers={"kid": key_id or environment["APNS_KEY_ID"]},
    )


def service_account(sim: Simulator, app: str = "demo") -> dict[str, str]:
    """Read the service account file."""
    account: dict[str, str] = json.loads(Path(sim.environments[app]["FCM_SERVICE_ACCOUNT_FILE"]).read_text())
    return account


def assertion(sim: Simulator, *, key: str | None = None, app: str = "demo", **claims: Any) -> str:
    """Sign an OAuth assertion, right unless told otherwise."""
    account = service_account(sim, app)
    now = int(time.time())
    right = {"iss": account["client_email"], "aud": account["token_uri"], "iat": now, "exp": now + 3600}
    return jwt.encode(
        right | {"scope": MESSAGING} | claims, _signing_key(key or account["private_key"]), algorithm="RS256"
    )


@cache
def _signing_key(pem: str) -> rsa.RSAPrivateKey:
    """Load a key once: its consistency check takes longer than most tests."""
    key = load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


async def access_token(sim: Simulator, client: httpx.AsyncClient, *, app: str = "demo") -> str:
    """Get an access token."""
    asked = {"grant_type": GRANT, "assertion": assertion(sim, app=app)}
    answer = await client.post(f"{sim.environment['FCM_URL']}/token", data=asked)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token
