"""The commands of the services, as the compose file has them, run in what the image holds."""

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client

from db.engine import async_url
from domain.naming import SEARCH_ATTRIBUTES
from simulator import Simulator
from tests.busy import soon
from tests.deploy.compose import COMPOSE_FILE, Command, health_command, project, seconds, service_command
from tests.deploy.faults import SETTINGS
from tests.servers import POSTGRES_PROGRAMS, free_port
from tests.stack import SECRET

NAMESPACE = "deployed"
PATH = f"{Path(sys.executable).parent}:{os.defpath}"


@pytest.fixture(scope="module")
async def database(postgres: str, image: Path) -> str:
    """A database that the services `database-roles` and `migrate` made ready, twice over; as API and workers use it."""
    for name in ("deployed", "temporal"):
        await _as_owner(postgres, f"CREATE DATABASE {name}")
    await _as_owner(postgres, "CREATE TABLE shards (id int)", database="temporal")
    owner = async_url(postgres).set(database="deployed")
    passwords = {"APPLICATION_PASSWORD": "of'application", "TEMPORAL_PASSWORD": "of$temporal"}
    roles = service_command(_project(**passwords), "database-roles").with_settings(
        **_server(postgres), PGDATABASE="deployed"
    )
    address = owner.render_as_string(hide_password=False)
    migrate = service_command(_project(), "migrate").with_settings(DATABASE_URL=address)
    for command in (roles, migrate, roles, migrate):
        code, output = await _finished(command, image, path=f"{POSTGRES_PROGRAMS}:{PATH}")
        assert code == 0, output
    application = owner.set(username="fastbell_app", password=passwords["APPLICATION_PASSWORD"])
    return application.render_as_string(hide_password=False)


@pytest.fixture(scope="module")
async def namespace(temporal: str, image: Path) -> str:
    """A namespace that the service `temporal-setup` made ready, twice over."""
    command = service_command(_project(TEMPORAL_ADDRESS=temporal, TEMPORAL_NAMESPACE=NAMESPACE), "temporal-setup")
    for _ in range(2):
        code, output = await _finished(command, image)
        assert code == 0, output
    return NAMESPACE


async def test_the_application_changes_rows_and_no_tables(database: str) -> None:
    engine = create_async_engine(database)
    async with engine.connect() as connection:
        await connection.execute(text("DELETE FROM outbox"))
        for statement in (
            "CREATE TABLE mine (id int)",
            "CREATE TEMPORARY TABLE mine (id int)",
            "ALTER TABLE outbox ADD COLUMN mine int",
            "DROP TABLE outbox",
            "TRUNCATE outbox",
            "CREATE ROLE mine",
        ):
            await connection.rollback()
            with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
                await connection.execute(text(statement))
    await engine.dispose()


@pytest.mark.long
async def test_a_dump_is_restored_as_the_page_says_once_the_roles_were_made(
    database: str, postgres: str, image: Path, tmp_path: Path
) -> None:
    page, dump = (COMPOSE_FILE.parent / "docs" / "deployment.md").read_text(), tmp_path / "fastbell.dump"
    [dumping] = re.findall(r"exec -T postgres (pg_dump .*) > fastbell\.dump", page)
    [restoring] = re.findall(r"exec -T postgres (pg_restore .*) < fastbell\.dump", page)
    its = _server(postgres) | {"PGDATABASE": "restored"}
    roles = service_command(_project(APPLICATION_PASSWORD="of'application"), "database-roles").with_settings(**its)
    user = f"--username {its['PGUSER']}"

    dumping = dumping.replace("--username fastbell", user).replace("custom fastbell", "custom deployed")
    await _shell(f"{dumping} > {dump}", its)
    await _as_owner(postgres, "CREATE DATABASE restored")
    assert (await _finished(roles, image, path=f"{POSTGRES_PROGRAMS}:{PATH}"))[0] == 0
    restoring = restoring.replace("--username fastbell", user).replace("--dbname fastbell", "--dbname restored")
    await _shell(f"{restoring} < {dump}", its)

    engine = create_async_engine(async_url(database).set(database="restored"))
    async with engine.connect() as connection:
        await connection.execute(text("DELETE FROM outbox"))
        with pytest.raises(ProgrammingError, match="must be owner"):
            await connection.execute(text("DROP TABLE outbox"))
    await engine.dispose()


@pytest.mark.usefixtures("database")
async def test_an_owner_who_is_no_superuser_makes_the_roles_as_often_as_it_likes(postgres: str, image: Path) -> None:
    """As with managed PostgreSQL. Roles that this owner has made itself it may administer."""
    for statement in (
        "CREATE ROLE managed LOGIN CREATEROLE CREATEDB",
        "GRANT fastbell_app, temporal TO managed WITH ADMIN OPTION",
        "CREATE DATABASE managed OWNER managed",
    ):
        await _as_owner(postgres, statement)
    roles = service_command(_project(APPLICATION_PASSWORD="of'application"), "database-roles").with_settings(
        **_server(postgres) | {"PGUSER": "managed", "PGDATABASE": "managed"}
    )

    for _ in range(2):
        code, output = await _finished(roles, image, path=f"{POSTGRES_PROGRAMS}:{PATH}")
        assert code == 0, output
    assert await _as_owner(postgres, "SELECT has_database_privilege('fastbell_app', 'managed', 'CONNECT')") == ["True"]
    assert await _as_owner(postgres, "SELECT has_database_privilege('temporal', 'managed', 'CONNECT')") == ["False"]


@pytest.mark.usefixtures("database")
async def test_temporals_databases_become_its_own(postgres: str) -> None:
    owners = await _as_owner(
        postgres,
        "SELECT tableowner FROM pg_tables WHERE tablename = 'shards'"
        " UNION SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'temporal'",
        database="temporal",
    )

    assert owners == ["temporal"]


async def test_temporal_setup_makes_the_namespace_and_its_search_attributes(temporal: str, namespace: str) -> None:
    client = await Client.connect(temporal, namespace=namespace)

    answer = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace=namespace))

    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    assert dict(answer.custom_attributes) == dict.fromkeys(SEARCH_ATTRIBUTES, keyword)


async def test_temporal_setup_gives_up_when_nobody_answers(image: Path) -> None:
    command = service_command(_project(TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}"), "temporal-setup")
    impatient = Command(command.argv, {**command.environment, "TEMPORAL_SETUP_PATIENCE": "1"})

    code, output = await _finished(impatient, image)

    assert code == 1
    assert "namespace fastbell: not after 1 s" in output


async def test_temporal_schema_prepares_both_databases_and_stops_at_the_first_failure(
    image: Path, tmp_path: Path
) -> None:
    calls, tool = tmp_path / "calls", tmp_path / "bin" / "temporal-sql-tool"
    tool.parent.mkdir()
    command = service_command(_project(), "temporal-schema")
    assert command.environment["SQL_USER"] == "temporal"
    assert command.environment["SQL_PASSWORD"] == SETTINGS["POSTGRES_PASSWORD"]  # where it has none of its own

    tool.write_text(f'#!/bin/sh\necho "$SQL_HOST $*" >> {calls}\n')
    tool.chmod(0o755)
    assert (await _finished(command, image, path=f"{tool.parent}:{PATH}"))[0] == 0
    assert calls.read_text().splitlines() == [
        "postgres --database temporal create",
        "postgres --database temporal setup-schema --version 0.0",
        "postgres --database temporal update-schema --schema-name postgresql/v12/temporal",
        "postgres --database temporal_visibility create",
        "postgres --database temporal_visibility setup-schema --version 0.0",
        "postgres --database temporal_visibility update-schema --schema-name postgresql/v12/visibility",
    ]

    tool.write_text("#!/bin/sh\nexit 3\n")
    assert await _finished(command, image, path=f"{tool.parent}:{PATH}") == (3, "")


async def test_the_api_gets_healthy_and_stops_on_sigterm(
    database: str, temporal: str, image: Path, tmp_path: Path
) -> None:
    read, port = _project(TEMPORAL_ADDRESS=temporal, AUTH_JWT_SECRET=SECRET), str(free_port())
    command = service_command(read, "api").with_settings(DATABASE_URL=database, API_HOST="127.0.0.1", API_PORT=port)
    health = _at_port(health_command(read, "api"), "8000", port)

    assert (await _finished(health, image))[0] == 1
    async with _running(command, image, tmp_path / "log") as api:
        await _healthy(health, image, api, tmp_path / "log")
        code = await _stopped(api, read["services"]["api"]["stop_grace_period"])

    assert code in {0, -signal.SIGTERM}  # uvicorn ends by the signal, once all is closed


async def test_the_worker_gets_healthy_and_stops_on_sigterm(
    database: str, temporal: str, namespace: str, simulator: Simulator, image: Path, tmp_path: Path
) -> None:
    read, port = _project(**simulator.environment, TEMPORAL_ADDRESS=temporal, TEMPORAL_NAMESPACE=namespace), free_port()
    command = service_command(read, "worker").with_settings(
        DATABASE_URL=database, METRICS_HOST="127.0.0.1", METRICS_PORT=str(port)
    )
    health = _at_port(health_command(read, "worker"), "9464", str(port))

    async with _running(command, image, tmp_path / "log") as worker:
        await _healthy(health, image, worker, tmp_path / "log")
        code = await _stopped(worker, read["services"]["worker"]["stop_grace_period"])

    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert code == 0
    assert [event["event"] for event in events if event["event"].startswith("worker ")] == [
        "worker ready",
        "worker stopping",
        "worker stopped",
    ]
    assert next(event["queues"] for event in events if event["event"] == "worker ready") == [
        "fastbell",
        "webhooks",
        "push-apns",
        "push-fcm",
    ]


@pytest.mark.parametrize(
    ("settings", "connection"),
    [
        ({}, {"tls": None}),
        ({"TEMPORAL_TLS": "true"}, {"tls": [None, None, None, None]}),
        ({"TEMPORAL_API_KEY": "key"}, {"api_key": "key", "tls": True}),
        (
            {
                "TEMPORAL_TLS_SERVER_NAME": "temporal.internal",
                "TEMPORAL_TLS_SERVER_CA_CERT_PATH": "ca.pem",
                "TEMPORAL_TLS_CLIENT_CERT_PATH": "cert.pem",
                "TEMPORAL_TLS_CLIENT_KEY_PATH": "key.pem",
            },
            {"tls": ["temporal.internal", "ca.pem", "cert.pem", "key.pem"]},
        ),
    ],
    ids=["own server", "TLS", "API key", "mTLS"],
)
@pytest.mark.parametrize("name", ["api", "worker"])
async def test_settings_alone_reach_an_existing_cluster(
    name: str, settings: dict[str, str], connection: dict[str, object], image: Path, tmp_path: Path
) -> None:
    for variable, value in settings.items():
        if variable.endswith("_PATH"):  # each file holds its own name
            (tmp_path / value).write_text(value)
            settings = {**settings, variable: str(tmp_path / value)}
    show = (
        "import json; from dispatch.client import connection; c = connection(); t = c.get('tls'); "
        "print(json.dumps({**c, 'tls': t if t in (None, True) else [v.decode() if isinstance(v, bytes) else v for v in "
        "(t.domain, t.server_root_ca_cert, t.client_cert, t.client_private_key)]}))"
    )
    command = service_command(_project(**settings, TEMPORAL_ADDRESS="a.b.example:7233", TEMPORAL_NAMESPACE="a.b"), name)
    argv = [*command.argv[: command.argv.index("python")], "python", "-c", show]

    code, output = await _finished(Command(argv, command.environment), image)

    assert code == 0, output
    assert json.loads(output) == {"target_host": "a.b.example:7233", "namespace": "a.b", **connection}


async def _as_owner(postgres: str, statement: str, database: str | None = None) -> list[str]:
    """Run one statement; gives the first column of what it returns."""
    url = async_url(postgres)
    engine = create_async_engine(url.set(database=database or url.database), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        result = await connection.execute(text(statement))
        rows = [str(row[0]) for row in result] if result.returns_rows else []
    await engine.dispose()
    return rows


async def _shell(line: str, environment: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_shell(
        line, env=environment | {"PATH": f"{POSTGRES_PROGRAMS}:{PATH}"}, stderr=PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()


def _server(postgres: str) -> dict[str, str]:
    """Name the server and its owner as PostgreSQL's programs read them."""
    owner = async_url(postgres)
    return {
        "PGHOST": str(owner.host or owner.query["host"]),
        "PGPORT": str(owner.port or owner.query.get("port", 5432)),
        "PGUSER": str(owner.username),
        "PGPASSWORD": str(owner.password or ""),
    }


def _project(**settings: str) -> dict[str, Any]:
    return project(COMPOSE_FILE.read_text(), {**SETTINGS, **settings})


def _at_port(command: Command, inside: str, port: str) -> Command:
    """Ask the same of the port that is free here."""
    return Command([word.replace(f"{inside}/", f"{port}/") for word in command.argv], command.environment)


async def _start(command: Command, image: Path, path: str, stdout: int) -> Process:
    environment = {**command.environment, "PATH": path}
    return await asyncio.create_subprocess_exec(*command.argv, cwd=image, env=environment, stdout=stdout, stderr=STDOUT)


async def _finished(command: Command, image: Path, path: str = PATH) -> tuple[int | None, str]:
    process = await _start(command, image, path, PIPE)
    async with soon(20):
        output, _ = await process.communicate()
    return process.returncode, output.decode()


@asynccontextmanager
async def _running(command: Command, image: Path, log: Path) -> AsyncIterator[Process]:
    with log.open("wb") as out:
        process = await _start(command, image, PATH, out.fileno())
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _healthy(health: Command, image: Path, process: Process, log: Path) -> None:
    """Ask as compose does, only more often."""
    async with soon(20):
        while (await _finished(health, image))[0] != 0:
            assert process.returncode is None, log.read_text()  # noqa: ASYNC240 -- the test is over
            await asyncio.sleep(0.1)


async def _stopped(process: Process, grace: str) -> int:
    process.terminate()
    return await asyncio.wait_for(process.wait(), seconds(grace))
