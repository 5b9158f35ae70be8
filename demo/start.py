"""Starts the parts in order, plays the demonstration, and prints the addresses."""

import asyncio
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import httpx

from commands.context import ROOT, actor, migrate_named, open_database
from commands.sign_in import bearer_token, sign_in_code
from demo.parts import Parts, PostgresPart, ProcessPart, Terminal, answering, temporal_command, temporal_environment
from demo.settings import LocalSettings, metrics_ports, shared_environment, write_settings
from demo.stories import Stage, demonstrate
from domain.naming import reminder_workflow_id
from settings.environment import auth_settings

_TOKEN_LIFETIME = timedelta(hours=1)
_CODE_LIFETIME = timedelta(hours=12)


async def start_and_demonstrate(settings: LocalSettings, terminal: Terminal, parts: Parts) -> None:
    """Start everything, each part when the earlier ones are ready; raises NotReady and ConfigError."""
    terminal.say(terminal.colour(f"Fastbell, all on this machine. Its state is in {_short(settings.run_dir)}", "bold"))
    settings.logs.mkdir(exist_ok=True)
    database_url = await _start_database(settings, terminal, parts)
    shared = shared_environment(settings, database_url)
    write_settings(settings.run_dir, shared)
    ports = metrics_ports(settings)
    await _start_processes(settings, shared, terminal, parts, ports)
    terminal.say()
    session_id = await _demonstrate(settings, shared, terminal)
    async with open_database(database_url) as sessions:
        code = await sign_in_code(sessions, actor(), _CODE_LIFETIME)
    _print_addresses(settings, terminal, session_id, code, ports)


async def _start_database(settings: LocalSettings, terminal: Terminal, parts: Parts) -> str:
    if settings.starts_postgres:
        postgres = await PostgresPart.start(settings.run_dir / "postgres", settings.logs)
        await parts.add(postgres, migrate_named(postgres.database_url))
        return postgres.database_url
    database_url = settings.given["DATABASE_URL"]
    await migrate_named(database_url)
    terminal.say("  postgres   the one that DATABASE_URL names")
    return database_url


async def _start_processes(
    settings: LocalSettings, shared: Mapping[str, str], terminal: Terminal, parts: Parts, ports: Sequence[int]
) -> None:
    """Start the processes, a worker for each of these ports. The API is last: once it answers, all is up."""
    level = "DEBUG" if shared.get("LOG_LEVEL") == "DEBUG" else "INFO"  # the worker logs at INFO that it is ready
    environment = {**settings.inherited, **shared, "LOG_FORMAT": "json", "LOG_LEVEL": level, "PYTHONUNBUFFERED": "1"}

    async def start(name: str, *command: str, more: Mapping[str, str] = environment) -> ProcessPart:
        return await ProcessPart.start(name, command, more, logs=settings.logs, terminal=terminal)

    async def start_worker(name: str, port: int) -> None:
        own = {**environment, "METRICS_PORT": str(port)}
        worker = await start(name, sys.executable, "worker.py", more=own)
        await parts.add(worker, worker.logging("worker ready"))

    async with httpx.AsyncClient(timeout=2, trust_env=False) as http:
        if settings.starts_temporal:
            namespace = f"{settings.temporal_ui_url}/api/v1/namespaces/{quote(settings.temporal_namespace, safe='')}"
            temporal = await start("temporal", *_temporal_command(settings), more=temporal_environment())
            await parts.add(temporal, answering(http, namespace))
        else:
            terminal.say("  temporal   the one that TEMPORAL_ADDRESS names")
        if settings.simulated:
            simulator = await start("simulator", sys.executable, "-m", "simulator")
            await parts.add(simulator, answering(http, f"{settings.simulator_url}/healthz"))
        else:
            terminal.say("  simulator  not started: both providers have settings in the environment")
        names = ["worker", *(f"worker{number}" for number in range(2, len(ports) + 1))]
        await asyncio.gather(*(start_worker(name, port) for name, port in zip(names, ports, strict=True)))
        api = await start("api", sys.executable, "-m", "api")
        await parts.add(api, answering(http, f"{settings.api_url}/readyz"))


async def _demonstrate(settings: LocalSettings, shared: Mapping[str, str], terminal: Terminal) -> UUID | None:
    auth = auth_settings(shared)
    if not settings.simulated:
        terminal.say("No demonstration: it needs a simulated phone.")
        return None
    if auth.jwt_secret is None:
        terminal.say("No demonstration: bearer tokens come only from the issuer at AUTH_JWKS_URL.")
        return None
    terminal.say(terminal.colour("A demonstration, through the HTTP API:", "bold"))
    stage = Stage(
        api_url=settings.api_url,
        simulator_url=settings.simulator_url,
        simulated=settings.simulated,
        bearer=lambda user, *scopes: bearer_token(auth, user, scopes, _TOKEN_LIFETIME),
        terminal=terminal,
    )
    return await demonstrate(stage)


_CLI = ".venv/bin/python cli.py"
_NO_HOUSEKEEPING = "WorkflowType != 'Retention' AND WorkflowType != 'OrphanSweep'"


def _print_addresses(
    settings: LocalSettings, terminal: Terminal, session_id: UUID | None, code: str, ports: Sequence[int]
) -> None:
    terminal.say()
    terminal.say(f"  console            {settings.api_url}/console  sign-in code {code}")
    terminal.say(f"  API documentation  {settings.api_url}/docs")
    if settings.starts_temporal:
        workflows = f"{settings.temporal_ui_url}/namespaces/{quote(settings.temporal_namespace, safe='')}/workflows"
        terminal.say(f"  Temporal Web UI    {workflows}?query={quote(_NO_HOUSEKEEPING, safe='')}")
        if session_id is not None:
            terminal.say(f"  alice's workflow   {workflows}/{quote(reminder_workflow_id(session_id), safe='')}")
    if settings.simulated:
        terminal.say(f"  the phones         {settings.simulator_url}")
    workers = "one worker" if len(ports) == 1 else f"{len(ports)} workers"
    terminal.say(f"  metrics            {workers}, on port {', '.join(map(str, ports))}")
    terminal.say(f"  logs               {_short(settings.logs)}/")
    elsewhere = f"RUN_DIR={shlex.quote(str(settings.run_dir))} " if settings.run_dir != ROOT / ".run" else ""
    if "AUTH_JWKS_URL" not in settings.given:
        terminal.say(f"  a user's token     {elsewhere}{_CLI} token --user alice")
    terminal.say(f"  a backend's key    {elsewhere}{_CLI} api-keys create --name backend --scope service")
    terminal.say(terminal.colour("\nCtrl-C stops everything.", "bold"))


def _temporal_command(settings: LocalSettings) -> list[str]:
    namespaces = () if settings.temporal_namespace == "default" else (settings.temporal_namespace,)
    database = settings.run_dir / "temporal.db"
    return temporal_command(settings.temporal_port, settings.temporal_ui_port, database, namespaces)


def _short(path: Path) -> str:
    """Shorten a path below the current directory."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
