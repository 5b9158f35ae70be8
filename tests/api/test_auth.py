"""Bearer tokens: who is let in, and who is not."""

import asyncio
import base64
import hmac
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.warnings import InsecureKeyLengthWarning

from api.app import create_app
from api.http.auth import KeySet, NoSuchKey, TokenCheck
from api.http.problems import Detail, ServiceUnavailable, Unauthorized
from settings.environment import AuthSettings, auth_settings, service_settings
from tests.api.issuer import Issuer, claim, open_issuer, public_pem
from tests.busy import crowding
from tests.stack import ROOT, SECRET, Stack, StackPlace, make_stack

RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """An issuer with an RSA key."""
    async with open_issuer() as issuer:
        issuer.add("rsa", RSA)
        yield issuer


def hs256(secret: str | bytes = SECRET, sub: object = "alice", **claims: Any) -> str:
    return jwt.encode(claim(sub, **claims), secret, algorithm="HS256")


def part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def forged(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """Sign with HMAC whatever the header says, as no careful library would."""
    signed = f"{part(header)}.{part(claims)}"
    signature = hmac.digest(secret, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def plain(sub: object = "alice") -> dict[str, Any]:
    return {"sub": sub, "exp": int((datetime.now(UTC) + timedelta(hours=1)).timestamp())}


async def whoever(check: TokenCheck, token: str) -> str:
    """The user id that a token is good for, else the reason why it is not."""
    try:
        return (await check.caller(token)).user_id
    except Unauthorized as error:
        return str(error)


async def test_a_token_signed_with_the_secret_names_its_bearer_and_scopes() -> None:
    check = TokenCheck(auth_settings({"AUTH_JWT_SECRET": SECRET}))

    caller = await check.caller(hs256(sub="alice", scope="support service"))
    without = await check.caller(hs256(sub="alice", scope=["support"]))

    assert (caller.user_id, caller.scopes) == ("alice", frozenset({"support", "service"}))
    assert without.scopes == frozenset()


BAD_SUB = "The bearer token's sub must be a user id of 1 to 200 printable characters."


def not_valid(reason: str) -> str:
    return f"The bearer token is not valid ({reason})."


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (hs256("another secret, of thirty-two bytes or more"), not_valid("InvalidSignatureError")),
        (hs256(exp=datetime.now(UTC) - timedelta(minutes=1)), not_valid("ExpiredSignatureError")),
        (hs256(nbf=datetime.now(UTC) + timedelta(hours=1)), not_valid("ImmatureSignatureError")),
        (hs256(exp=None), not_valid("MissingRequiredClaimError")),
        (hs256(exp="soon"), not_valid("DecodeError")),
        (hs256(sub=None), not_valid("MissingRequiredClaimError")),
        (forged({"alg": "HS256"}, plain(7), SECRET.encode()), not_valid("InvalidSubjectError")),
        (hs256(sub=""), BAD_SUB),
        (hs256(sub="a" * 201), BAD_SUB),
        (hs256(sub="al\0ice"), BAD_SUB),
        (hs256(sub="alice\n"), BAD_SUB),
        (forged({"alg": "HS256"}, plain("\ud800"), SECRET.encode()), BAD_SUB),
        (jwt.encode(claim(), "", algorithm="none"), not_valid("InvalidAlgorithmError")),
        (f"{part({'alg': 'NoNe'})}.{part(plain())}.", not_valid("InvalidAlgorithmError")),
        (jwt.encode(claim(), SECRET * 2, algorithm="HS512"), not_valid("InvalidAlgorithmError")),
        (jwt.encode(claim(), RSA, algorithm="RS256"), not_valid("InvalidAlgorithmError")),
        ("", not_valid("DecodeError")),
        ("a.b.c", not_valid("DecodeError")),
        ("ü.ü.ü", not_valid("DecodeError")),
        (f"{part([])}.{part({})}.", not_valid("DecodeError")),
    ],
    ids=lambda value: "" if "." in value else None,
)
async def test_a_token_that_does_not_hold_is_refused_with_its_reason(token: str, reason: str) -> None:
    check = TokenCheck(auth_settings({"AUTH_JWT_SECRET": SECRET}))

    assert await whoever(check, token) == reason


async def test_a_token_nested_without_end_is_refused() -> None:
    check = TokenCheck(auth_settings({"AUTH_JWT_SECRET": SECRET}))
    header = base64.urlsafe_b64encode(b"[" * 100_000).decode()

    assert (await whoever(check, f"{header}.e30.e30")).startswith("The bearer token is not valid")


async def test_a_token_just_expired_is_good_for_clocks_that_differ() -> None:
    check = TokenCheck(auth_settings({"AUTH_JWT_SECRET": SECRET}))

    assert await whoever(check, hs256(exp=datetime.now(UTC) - timedelta(seconds=3))) == "alice"


async def test_a_user_id_may_be_any_200_printable_characters() -> None:
    check = TokenCheck(auth_settings({"AUTH_JWT_SECRET": SECRET}))
    user_id = ("auth0|Zoë-日本 " * 20)[:200]

    assert await whoever(check, hs256(sub=user_id)) == user_id


@pytest.mark.parametrize(
    ("settings", "claims", "result"),
    [
        ({"AUTH_AUDIENCE": "fastbell"}, {"aud": "fastbell"}, "alice"),
        ({"AUTH_AUDIENCE": "fastbell"}, {"aud": ["other", "fastbell"]}, "alice"),
        ({"AUTH_AUDIENCE": "fastbell"}, {"aud": "other"}, not_valid("InvalidAudienceError")),
        ({"AUTH_AUDIENCE": "fastbell"}, {}, not_valid("MissingRequiredClaimError")),
        ({}, {"aud": "anything"}, "alice"),
        ({"AUTH_ISSUER": "https://id.example"}, {"iss": "https://id.example"}, "alice"),
        ({"AUTH_ISSUER": "https://id.example"}, {"iss": "https://id.evil"}, not_valid("InvalidIssuerError")),
        ({"AUTH_ISSUER": "https://id.example"}, {}, not_valid("MissingRequiredClaimError")),
        ({}, {"iss": "https://anyone"}, "alice"),
    ],
)
async def test_audience_and_issuer_are_checked_where_they_are_set(
    settings: dict[str, str], claims: dict[str, Any], result: str
) -> None:
    check = TokenCheck(auth_settings({"AUTH_JWT_SECRET": SECRET} | settings))

    assert await whoever(check, hs256(**claims)) == result


async def test_the_api_lets_in_who_comes_with_a_good_token_and_nobody_else(api: Stack) -> None:
    path = "/v1/device-tokens"

    good = await api.http.get(path, headers={"Authorization": f"bearer {hs256()}"})
    answers = [
        await api.http.get(path),
        await api.http.get(path, headers={"Authorization": "Basic YTpi"}),
        await api.http.get(path, headers={"Authorization": f"Bearer {hs256()}x"}),
    ]

    assert good.status_code == 200
    assert [(a.status_code, a.headers["www-authenticate"], a.headers["content-type"]) for a in answers] == [
        (401, "Bearer", "application/problem+json")
    ] * 3
    assert answers[0].json() == {
        "type": "urn:fastbell:problem:not-signed-in",
        "title": "Not signed in",
        "status": 401,
        "detail": "Send a bearer token in the Authorization header.",
    }


async def test_the_api_checks_tokens_against_a_key_set_that_it_fetches_once_for_all(
    detached: StackPlace, issuer: Issuer
) -> None:
    issuer.add("ec", EC)
    settings = service_settings(detached.environment())
    auth = auth_settings({"AUTH_JWKS_URL": issuer.url, "AUTH_AUDIENCE": "*"})
    async with make_stack(detached, create_app(settings, auth)) as stack:
        tokens = [issuer.sign(kid, f"user-{n}") for n in range(10) for kid in ("rsa", "ec")]

        answers = await asyncio.gather(
            *(stack.http.get("/v1/device-tokens", headers={"Authorization": f"Bearer {token}"}) for token in tokens)
        )

    assert [answer.status_code for answer in answers] == [200] * 20
    assert issuer.times_asked == 1


@pytest.mark.parametrize(
    "header", [{"alg": "HS256", "kid": "rsa"}, {"alg": "RS256", "kid": "rsa"}, {"alg": "none", "kid": "rsa"}]
)
async def test_a_public_key_cannot_be_used_as_a_secret(issuer: Issuer, header: dict[str, Any]) -> None:
    check = TokenCheck(AuthSettings(jwks_url=issuer.url, audience="*"))

    result = await whoever(check, forged(header, plain(), public_pem(RSA)))

    assert result.startswith("The bearer token is not valid")


async def test_a_key_signs_only_with_its_own_algorithm_and_only_under_its_own_name(issuer: Issuer) -> None:
    issuer.add("ec", EC)
    check = TokenCheck(AuthSettings(jwks_url=issuer.url, audience="*"))

    swapped = jwt.encode(claim(), RSA, algorithm="RS256", headers={"kid": "ec"})
    nobody = jwt.encode(claim(), OTHER_RSA, algorithm="RS256", headers={"kid": "rsa"})
    other_hash = jwt.encode(claim(), RSA, algorithm="RS512", headers={"kid": "rsa"})
    nameless = jwt.encode(claim(), RSA, algorithm="RS256")

    assert await whoever(check, swapped) == not_valid("InvalidAlgorithmError")
    assert await whoever(check, nobody) == not_valid("InvalidSignatureError")
    assert await whoever(check, other_hash) == not_valid("InvalidAlgorithmError")
    assert await whoever(check, nameless) == "alice"  # for one key alone fits


async def test_a_token_without_a_kid_is_checked_with_the_one_key_that_fits_and_never_with_one_of_several(
    issuer: Issuer,
) -> None:
    nameless = jwt.encode(claim(), RSA, algorithm="RS256")
    check = TokenCheck(AuthSettings(jwks_url=issuer.url, audience="*"))
    issuer.add("ec", EC)
    alone = await whoever(check, nameless)

    issuer.add("next", OTHER_RSA)
    with_another = await whoever(TokenCheck(AuthSettings(jwks_url=issuer.url, audience="*")), nameless)

    assert (alone, with_another) == ("alice", not_valid("NoSuchKey"))


UNFIT = {
    "for encryption": {"use": "enc"},
    "for wrapping": {"key_ops": ["wrapKey"]},
    "of another algorithm": {"alg": "RS512"},
    "of no known algorithm": {"alg": "RSA-OAEP"},
    "of another type": {"kty": "OKP"},
    "broken": {"n": "!!"},
    "of no form": {"n": 7},
    "of no modulus": {"n": None},
}


@pytest.mark.parametrize("odd", UNFIT.values(), ids=UNFIT)
async def test_keys_that_may_not_check_a_token_do_not_count_and_hide_no_other(
    issuer: Issuer, odd: dict[str, Any]
) -> None:
    good, other = issuer.published()[0], jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_RSA.public_key(), as_dict=True)
    issuer.answer = json.dumps({"keys": [other | {"kid": "other"} | odd, None, 7, [], {}, good]}).encode()
    check = TokenCheck(AuthSettings(jwks_url=issuer.url, audience="*"))

    named = jwt.encode(claim(), OTHER_RSA, algorithm="RS256", headers={"kid": "other"})
    nameless = jwt.encode(claim(), RSA, algorithm="RS256")

    assert await whoever(check, named) == not_valid("NoSuchKey")
    assert await whoever(check, issuer.sign("rsa")) == "alice"
    assert await whoever(check, nameless) == "alice"


async def test_an_rsa_key_of_fewer_than_2048_bits_does_not_count(issuer: Issuer) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    issuer.add("weak", weak)
    check = TokenCheck(AuthSettings(jwks_url=issuer.url, audience="*"))

    with pytest.warns(InsecureKeyLengthWarning):
        token = issuer.sign("weak")

    assert await whoever(check, token) == not_valid("NoSuchKey")
    assert await whoever(check, issuer.sign("rsa")) == "alice"


async def test_a_key_set_of_more_than_256_kib_is_not_read_to_its_end(issuer: Issuer) -> None:
    issuer.answer = json.dumps({"keys": issuer.published(), "more": "x" * 256 * 1024}).encode()
    check = TokenCheck(AuthSettings(jwks_url=issuer.url, audience="*"))

    with pytest.raises(ServiceUnavailable):
        await check.caller(issuer.sign("rsa"))


async def test_an_issuer_that_never_finishes_delays_nobody_whose_key_is_known(issuer: Issuer) -> None:
    clock = Clock()
    keys = KeySet(issuer.url, clock)
    token = issuer.sign("rsa")
    await keys.key(token)
    issuer.drips = True
    keys._fetch_within = 0.3  # only now: the first fetch may take longer on a busy machine
    clock.now += 301

    async with asyncio.timeout(0.2):
        known = await keys.key(token)
    with pytest.raises(NoSuchKey):  # after the whole fetch was given up, however often a byte came
        async with asyncio.timeout(5):
            await keys.key(jwt.encode(claim(), OTHER_RSA, algorithm="RS256", headers={"kid": "unknown"}))

    assert known.key_id == "rsa"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_an_unknown_key_makes_the_key_set_be_fetched_again_but_not_more_than_every_ten_seconds(
    issuer: Issuer,
) -> None:
    clock = Clock()
    keys = KeySet(issuer.url, clock)
    await keys.key(issuer.sign("rsa"))
    issuer.add("next", OTHER_RSA)
    token = issuer.sign("next")

    with pytest.raises(NoSuchKey):
        await keys.key(token)
    asked_at_once = issuer.times_asked
    clock.now += 10
    found = await keys.key(token)

    assert found.key_id == "next"
    assert (asked_at_once, issuer.times_asked) == (1, 2)


async def test_tokens_with_made_up_keys_cannot_make_us_ask_the_issuer_without_end(issuer: Issuer) -> None:
    clock = Clock()
    keys = KeySet(issuer.url, clock)
    made_up = [jwt.encode(claim(), OTHER_RSA, algorithm="RS256", headers={"kid": f"{n}"}) for n in range(20)]

    for _ in range(3):
        results = await asyncio.gather(*(keys.key(token) for token in made_up), return_exceptions=True)
        assert {type(result) for result in results} == {NoSuchKey}
        clock.now += 10

    assert issuer.times_asked == 3


async def test_a_key_that_its_issuer_withdrew_is_let_go_once_the_set_is_five_minutes_old(issuer: Issuer) -> None:
    clock = Clock()
    keys = KeySet(issuer.url, clock)
    token = issuer.sign("rsa")
    await keys.key(token)
    del issuer.keys["rsa"]
    issuer.add("next", OTHER_RSA)

    clock.now += 301
    await keys.key(token)  # the last one that is answered from the old set: nobody waits for the fetch
    await keys.key(issuer.sign("next"))

    with pytest.raises(NoSuchKey):
        await keys.key(token)


@pytest.mark.parametrize(
    ("status", "answer"),
    [(503, b""), (200, b"<html>"), (200, b"[]"), (200, b'{"keys": []}'), (200, b"\xff"), (404, b"{}")],
)
async def test_known_keys_outlive_an_issuer_in_trouble_for_a_day(issuer: Issuer, status: int, answer: bytes) -> None:
    clock = Clock()
    keys = KeySet(issuer.url, clock)
    token = issuer.sign("rsa")
    await keys.key(token)
    issuer.status, issuer.answer = status, answer

    for _ in range(3):
        clock.now += 3600
        await keys.key(token)
    with pytest.raises(NoSuchKey):  # this one waits for the fetch
        await keys.key(jwt.encode(claim(), OTHER_RSA, algorithm="RS256", headers={"kid": "unknown"}))
    clock.now += 24 * 3600
    with pytest.raises(ServiceUnavailable):
        await keys.key(token)
    issuer.status, issuer.answer = 200, None
    clock.now += 10

    assert (await keys.key(token)).key_id == "rsa"


async def test_while_there_are_no_keys_at_all_the_api_asks_to_try_again_instead_of_signing_people_out(
    detached: StackPlace, issuer: Issuer
) -> None:
    issuer.status = 500
    settings = service_settings(detached.environment())
    async with make_stack(detached, create_app(settings, AuthSettings(jwks_url=issuer.url, audience="*"))) as stack:
        bearer = {"Authorization": f"Bearer {issuer.sign('rsa')}"}

        answer = await stack.http.get("/v1/device-tokens", headers=bearer)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {
        "type": "urn:fastbell:problem:unavailable",
        "title": "Temporarily unavailable",
        "status": 503,
        "detail": Detail.NO_KEYS,
    }


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"AUTH_ISSUER": "https://id.example"},
            "AUTH_AUDIENCE and AUTH_ISSUER are claims of JWTs: also set AUTH_JWT_SECRET or AUTH_JWKS_URL.",
        ),
        ({"AUTH_JWT_SECRET": "short and secret"}, "AUTH_JWT_SECRET must have at least 32 bytes."),
        (
            {"AUTH_JWT_SECRET": SECRET, "TEMPORAL_ADDRESS": "temporal"},
            "TEMPORAL_ADDRESS must be host:port, for example 127.0.0.1:7233.",
        ),
    ],
)
async def test_the_api_process_refuses_to_start_with_one_sentence(settings: dict[str, str], sentence: str) -> None:
    environment = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none", "PATH": "/usr/bin:/bin"}

    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "api"],
        cwd=ROOT,
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=30 * crowding(),
        check=False,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", sentence + "\n")
