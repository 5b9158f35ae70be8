"""Each fault has a line of its own, with what to do; whatever is not at fault stays as it should be."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import text
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest

from commands.doctor.report import ReportLine
from db.engine import make_engine
from domain.naming import SEARCH_ATTRIBUTES
from tests.credential_files import SERVICE_ACCOUNTS, spoil
from tests.doctor.certificates import certificate, showing
from tests.doctor.conftest import Examine
from tests.servers import free_port
from tests.stack import Stack, eventually

NO_PEM = "it holds no private key in PEM form without a password"
Lines = list[tuple[str, str, str]]


def findings(lines: list[ReportLine]) -> Lines:
    """Say what is wrong: area, level, and what was found."""
    assert all(line.to_do for line in lines)
    return [(line.area, line.level.value, line.found) for line in lines]


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def account(healthy: Stack, directory: Path, *, mode: int = 0o600, **changes: str) -> str:
    """Write a service account that differs a little."""
    found = json.loads(Path(healthy.place.simulator.environment["FCM_SERVICE_ACCOUNT_FILE"]).read_text())
    file = directory / "account.json"
    file.write_text(json.dumps(found | changes))
    file.chmod(mode)
    return str(file)


async def test_a_key_that_is_not_the_one_of_its_id(examine: Examine, tmp_path: Path) -> None:
    key = tmp_path / "key.p8"
    key.write_text(pem(ec.generate_private_key(ec.SECP256R1())))
    key.chmod(0o600)

    lines = await examine(APNS_KEY_FILE=str(key))

    meaning = (
        "InvalidProviderToken: the key does not sign for this key id and team, or was revoked, or our clock is wrong"
    )
    assert findings(lines) == [
        ("apns", "failure", f"default app, production: {meaning}"),
        ("apns", "warning", f"default app, sandbox: {meaning}"),
    ]


@pytest.mark.parametrize(
    ("reason", "status", "meaning"),
    [
        ("BadTopic", 400, "the topic is not a bundle id"),
        ("TopicDisallowed", 400, "the key's team may not push to this topic, or the key is restricted to others"),
        ("BadEnvironmentKeyIdInToken", 403, "the key is for the other environment only"),
        ("SomethingNew", 403, "not the expected refusal of the probe"),
    ],
)
async def test_what_apple_refuses(examine: Examine, healthy: Stack, reason: str, status: int, meaning: str) -> None:
    healthy.place.simulator.faults.add(
        provider="apns", environment="production", fault="answer", status=status, reason=reason
    )

    lines = await examine()

    assert findings(lines) == [("apns", "failure", f"default app, production: {reason}: {meaning}")]


async def test_an_answer_to_a_push_for_apple_that_is_not_apples(examine: Examine, healthy: Stack) -> None:
    healthy.place.simulator.faults.add(provider="apns", environment="production", fault="answer", status=403, reason="")

    [line] = await examine()

    assert line.found == "default app, production: http_403: an answer without a reason, so it is not Apple's"
    assert line.to_do
    assert "Firebase" not in line.to_do


@pytest.mark.parametrize(
    ("fault", "meaning"),
    [
        (
            {"error_code": "SENDER_ID_MISMATCH"},
            "SENDER_ID_MISMATCH: the project of the service account is not the one that phones register with",
        ),
        (
            {"status": 403},
            "PERMISSION_DENIED: the service account may not send in this project, or the FCM API is off there",
        ),
        ({"status": 404}, "NOT_FOUND: there is no such project at this address"),
    ],
    ids=["another project", "a bare 403", "a bare 404"],
)
async def test_what_google_refuses(examine: Examine, healthy: Stack, fault: dict[str, Any], meaning: str) -> None:
    healthy.place.simulator.faults.add(provider="fcm", fault="answer", **fault)

    assert findings(await examine()) == [("fcm", "failure", f"default app: {meaning}")]


async def test_a_service_account_whose_key_was_revoked(examine: Examine, healthy: Stack, tmp_path: Path) -> None:
    key = pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))

    [line] = await examine(FCM_SERVICE_ACCOUNT_FILE=account(healthy, tmp_path, private_key=key))

    assert (line.area, line.level) == ("fcm", "failure")
    assert line.found.startswith("default app: oauth_refused: ")


async def test_a_service_account_of_another_project(examine: Examine, healthy: Stack, tmp_path: Path) -> None:
    [line] = await examine(FCM_SERVICE_ACCOUNT_FILE=account(healthy, tmp_path, project_id="another"))

    assert line.found.startswith("default app: PERMISSION_DENIED: ")


async def test_a_provider_that_cannot_be_reached(examine: Examine) -> None:
    lines = await examine(FCM_URL=f"https://127.0.0.1:{free_port()}")

    assert findings(lines) == [
        ("fcm", "failure", "default app: no connection (ConnectionRefusedError)"),
        ("fcm", "failure", "default app: connect_failed: no connection could be made"),
    ]


async def test_a_sandbox_that_cannot_be_reached_is_of_no_matter_to_most(examine: Examine) -> None:
    lines = await examine(APNS_SANDBOX_URL=f"https://127.0.0.1:{free_port()}")

    assert findings(lines) == [
        ("apns", "warning", "default app, sandbox: no connection (ConnectionRefusedError)"),
        ("apns", "warning", "default app, sandbox: connect_failed: no connection could be made"),
    ]


async def test_a_certificate_that_has_expired(examine: Examine, tmp_path: Path) -> None:
    files = certificate(tmp_path, lasts=timedelta(days=-1))
    async with showing(files, "h2") as url:
        lines = findings(await examine(FCM_URL=url, FCM_CA_FILE=str(files[0])))

    [ours, theirs] = [found for _, _, found in lines if "certificate" in found]
    assert ours.startswith(f"default app: authorities in {files[0]}: certificate expired on ")
    assert theirs == "default app: its certificate is not good: certificate has expired"
    assert {area for area, _, _ in lines} == {"fcm"}


async def test_a_certificate_that_is_about_to_expire_and_a_peer_that_does_not_speak_http2(
    examine: Examine, tmp_path: Path
) -> None:
    files = certificate(tmp_path, lasts=timedelta(days=5))
    async with showing(files, "h2") as good, showing(files, "http/1.1") as old:
        lines = findings(await examine(APNS_URL=good, APNS_SANDBOX_URL=old, APNS_CA_FILE=str(files[0])))

    founds = [found for _, level, found in lines if level == "warning"]
    assert [found.partition(": certificate until ")[0] for found in founds][:2] == [
        f"default app: authorities in {files[0]}",
        "default app, production",
    ]
    assert founds[0].endswith(", for 4 days")


async def test_certificates_that_this_client_shows_to_temporal(examine: Examine, tmp_path: Path) -> None:
    expired, _ = certificate(tmp_path, lasts=timedelta(days=-3))
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")

    lines = await examine(
        offline=True, TEMPORAL_TLS_CLIENT_CERT_PATH=str(expired), TEMPORAL_TLS_SERVER_CA_CERT_PATH=str(nothing)
    )

    assert [found.partition(" on ")[0] for _, _, found in findings(lines)] == [
        "TEMPORAL_TLS_CLIENT_CERT_PATH: certificate expired",
        f"TEMPORAL_TLS_SERVER_CA_CERT_PATH: {nothing} holds no certificate (ValueError)",
    ]


@pytest.mark.parametrize(
    ("days", "found"),
    [(-1, "its certificate is not good: certificate has expired"), (3, "certificate until ")],
)
async def test_a_certificate_of_temporal(examine: Examine, tmp_path: Path, days: int, found: str) -> None:
    files = certificate(tmp_path, lasts=timedelta(days=days))
    async with showing(files, "h2") as url:
        address = url.removeprefix("https://")
        settings = {"TEMPORAL_ADDRESS": address, "TEMPORAL_TLS": "true"}
        lines = findings(await examine(**settings, TEMPORAL_TLS_SERVER_CA_CERT_PATH=str(files[0])))

    [line] = [line for line in lines if line[2].startswith(address)]
    assert line[:2] == ("temporal", "failure" if days < 0 else "warning")
    assert line[2].startswith(f"{address}: {found}")


async def test_a_namespace_without_search_attributes_workers_and_schedules(examine: Examine, healthy: Stack) -> None:
    bare = f"bare-{uuid4()}"
    request = RegisterNamespaceRequest(
        namespace=bare, workflow_execution_retention_period=Duration(seconds=3 * 24 * 3600)
    )
    await healthy.temporal.workflow_service.register_namespace(request)

    async def known() -> Lines | None:
        found = findings(await examine(TEMPORAL_NAMESPACE=bare))
        return None if any("NOT_FOUND" in line or "no namespace" in line for _, _, line in found) else found

    lines = await eventually(known)

    assert lines == [
        *[
            ("temporal", "failure", f"search attribute {name} is missing, so no workflow can start")
            for name in SEARCH_ATTRIBUTES
        ],
        *[
            ("temporal", "failure", f"no worker polls task queue {name}")
            for name in ("fastbell", "push-apns", "push-fcm")
        ],
        ("temporal", "failure", "schedule retention is missing"),
    ]


async def test_a_namespace_that_is_not_there(examine: Examine) -> None:
    lines = findings(await examine(TEMPORAL_NAMESPACE="nowhere"))

    assert lines == [("temporal", "failure", "there is no namespace nowhere")]


async def test_a_schedule_that_is_paused(examine: Examine, healthy: Stack) -> None:
    handle = healthy.temporal.get_schedule_handle("retention")
    await handle.pause()
    lines = findings(await examine())
    await handle.unpause()

    assert lines == [("temporal", "warning", "schedule retention is paused")]


async def test_a_temporal_that_is_away(examine: Examine) -> None:
    [(area, level, found)] = findings(await examine(TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}"))

    assert (area, level) == ("temporal", "failure")
    assert found.startswith("cannot be reached, so nothing there was checked")


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"TEMPORAL_ADDRESS": "nowhere"}, "TEMPORAL_ADDRESS must be host:port, for example 127.0.0.1:7233."),
        ({"TEMPORAL_TLS_CLIENT_CERT_PATH": "/none.pem"}, "TEMPORAL_* cannot be used: "),
    ],
)
async def test_settings_of_temporal_that_cannot_be(examine: Examine, settings: dict[str, str], found: str) -> None:
    lines = [line for line in findings(await examine(**settings)) if not line[2].startswith("TEMPORAL_TLS_CLIENT_")]

    assert [line[:2] for line in lines] == [("settings", "failure")]
    assert lines[0][2].startswith(found)


async def test_an_authority_for_temporal_that_is_no_certificate(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    settings = {"TEMPORAL_TLS": "true", "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(tmp_path / "ca.pem")}

    lines = findings(await examine(**settings))

    assert [found for _, _, found in lines] == [
        f"TEMPORAL_TLS_SERVER_CA_CERT_PATH: {tmp_path}/ca.pem holds no certificate (ValueError)",
        (
            "cannot be reached, so nothing there was checked"
            f" (TEMPORAL_TLS_SERVER_CA_CERT_PATH names a file without certificates in PEM form: {tmp_path}/ca.pem)"
        ),
    ]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"DATABASE_URL": "garbage"}, "DATABASE_URL: must be an address such as postgresql://user@host/name."),
        ({"AUTH_JWT_SECRET": "", "AUTH_JWKS_URL": "http://["}, "AUTH_JWKS_URL: Invalid IPv6 URL."),
    ],
    ids=["database", "key set"],
)
async def test_an_address_that_is_none_is_reported_with_the_settings_and_not_called(
    examine: Examine, settings: dict[str, str], found: str
) -> None:
    lines = findings(await examine(**settings))

    assert [line for line in lines if line[1] == "failure"] == [("settings", "failure", found)]


async def test_workers_that_have_stopped_though_temporal_still_remembers_them(
    examine: Examine, new_database: Callable[[str], Awaitable[str]]
) -> None:
    url = await new_database("deserted")
    engine = make_engine(url)
    async with engine.begin() as db:
        await db.execute(
            text("INSERT INTO workers (worker_id, seen_at, gates) VALUES (:id, now() - interval '11 s', '{}')"),
            {"id": uuid4()},
        )
    await engine.dispose()

    lines = findings(await examine(DATABASE_URL=url))

    assert lines == [("database", "failure", "no worker was alive in the last 10 s")]


async def test_a_database_that_was_never_migrated(examine: Examine, postgres: str) -> None:
    lines = findings(await examine(DATABASE_URL=postgres))

    assert lines == [("database", "failure", "the database was never migrated")]


@pytest.mark.parametrize(
    ("present", "level", "found"),
    [
        ("0001", "failure", "the database is at migration 0001, not at {newest}"),
        ("9999", "warning", "a newer release has migrated the database to 9999; this one works with it"),
    ],
    ids=["older", "newer"],
)
async def test_a_database_of_another_release(
    examine: Examine, healthy: Stack, present: str, level: str, found: str
) -> None:
    [(newest,)] = await healthy.rows("SELECT version_num FROM alembic_version")
    async with healthy.sessions.begin() as db:
        await db.execute(text("UPDATE alembic_version SET version_num = :present"), {"present": present})
    lines = findings(await examine())
    async with healthy.sessions.begin() as db:
        await db.execute(text("UPDATE alembic_version SET version_num = :newest"), {"newest": newest})

    assert lines == [("database", level, found.format(newest=newest))]


async def test_a_database_that_is_away(examine: Examine) -> None:
    lines = findings(await examine(DATABASE_URL=f"postgresql://127.0.0.1:{free_port()}/none"))

    assert [(area, level) for area, level, _ in lines] == [("database", "failure")]
    assert "PostgreSQL cannot be reached" in lines[0][2]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"AUTH_JWT_SECRET": "", "AUTH_AUDIENCE": "us"}, "AUTH_AUDIENCE and AUTH_ISSUER are claims of JWTs"),
        ({"RATE_LIMIT": "often"}, "RATE_LIMIT: must be a rate such as 600/minute, or 0 for no limit."),
        ({"APNS_RATE": "-1"}, "APNS_RATE: "),
        ({"RETENTION_DAYS": "0"}, "RETENTION_DAYS: "),
        ({"FCM_SERVICE_ACOUNT_FILE": "x"}, "FCM_SERVICE_ACOUNT_FILE is not a setting of Fastbell; did you mean"),
        ({"HTTPS_PROXY": "ftp://proxy.example"}, "HTTPS_PROXY: must be the http:// address of a proxy."),
        ({"HTTPS_PROXY": "garbage"}, "HTTPS_PROXY: must be the http:// address of a proxy."),
        ({"FCM_CA_FILE": "/dev/null"}, "FCM_CA_FILE: names what is no regular file: /dev/null."),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL: "),
    ],
    ids=str,
)
async def test_a_setting_that_is_wrong(examine: Examine, settings: dict[str, str], found: str) -> None:
    [line] = findings(await examine(offline=True, **settings))

    assert line[:2] == ("settings", "failure")
    assert line[2].startswith(found)


async def test_names_that_are_not_as_apple_makes_them(examine: Examine) -> None:
    lines = findings(await examine(offline=True, APNS_KEY_ID="KEY", APNS_TOPIC="fasting"))

    odd = "key id 'KEY', topic 'fasting', key id 'KEY' beside the file of key FBSIMKEY01"
    assert lines == [("apns", "warning", f"default app: {odd}: not in Apple's format")]


async def test_one_broken_app_of_many_hides_no_other(examine: Examine, healthy: Stack, tmp_path: Path) -> None:
    theirs = healthy.place.simulator.environment
    open_ = account(healthy, tmp_path, mode=0o644)
    (tmp_path / "no.p8").write_text("no key")
    fcm = f'url = "{theirs["FCM_URL"]}"\nca_file = "{theirs["FCM_CA_FILE"]}"\n'
    (tmp_path / "apps.toml").write_text(f"""
        [lacking.apns]
        key_file = "no.p8"
        [broken.apns]
        key_file = "no.p8"
        key_id = "ABCDE12345"
        team_id = "ABCDE12345"
        topic = "com.example.app"
        [good.fcm]
        service_account_file = "account.json"
        {fcm}
    """)

    lines = findings(await examine(APPS_FILE=str(tmp_path / "apps.toml")))

    assert lines == [
        ("settings", "failure", "APPS_FILE, app lacking: apns.key_id is not set; see docs/apps.md for what it means."),
        ("settings", "failure", f"apns, broken: {tmp_path}/no.p8 cannot be used: {NO_PEM}"),
        ("settings", "warning", f"fcm, good: {open_} can be read by everybody on this machine"),
    ]


@pytest.mark.parametrize("content", SERVICE_ACCOUNTS, ids=lambda content: repr(content)[:40])
async def test_a_service_account_that_is_none(
    examine: Examine, healthy: Stack, tmp_path: Path, content: object
) -> None:
    file = Path(account(healthy, tmp_path))
    spoil(file, content)

    lines = findings(await examine(offline=True, FCM_SERVICE_ACCOUNT_FILE=str(file)))

    wanted = f"fcm, default app: {file} cannot be used: {SERVICE_ACCOUNTS[content]}"
    assert ("settings", "failure", wanted) in lines


async def test_an_apple_key_of_another_kind(examine: Examine, tmp_path: Path) -> None:
    key = tmp_path / "key.p8"
    key.write_text(pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))

    lines = findings(await examine(offline=True, APNS_KEY_FILE=str(key)))

    found = f"apns, default app: {key} cannot be used: its key is not of the curve P-256, as Apple's are"
    assert ("settings", "failure", found) in lines


async def test_a_provider_that_is_broken_is_not_one_that_is_missing(examine: Examine, healthy: Stack) -> None:
    nothing = dict.fromkeys(healthy.place.simulator.environment, "")

    [line] = findings(await examine(offline=True, **nothing | {"APNS_KEY_ID": "ABCDE12345"}))

    assert line[2].startswith("APNS_KEY_FILE is not set")


async def test_no_provider_at_all(examine: Examine, healthy: Stack) -> None:
    lines = findings(await examine(offline=True, **dict.fromkeys(healthy.place.simulator.environment, "")))

    assert lines == [("settings", "failure", "no provider is configured, so no worker starts")]
