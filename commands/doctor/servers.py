"""The doctor's look at servers: PostgreSQL, Temporal, the key set of the issuer, and their clocks."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import httpx
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode, TLSConfig

from api.http.auth import UNCOMPRESSED, KeySet, read_bounded, usable_keys
from commands.context import as_config_errors, open_database
from commands.doctor.report import (
    Area,
    Check,
    ReportLine,
    clock_line,
    expiry,
    expiry_line,
    file_lines,
    lines_of,
    peer_lines,
)
from db.engine import Pooling, pooling, present_instant
from db.migrate import newest_revision, present_revision
from db.workers import LATELY, live
from dispatch.client import connect, connection, silent_runtime
from domain.naming import RETENTION, SEARCH_ATTRIBUTES, WORKFLOW_QUEUE, push_queue
from domain.push import Provider
from push.http2.proxy import Proxies
from settings.environment import ConfigError

DATABASE = Area("database")


_MIXED = "DATABASE_URL leads through a pooler that gives each transaction another connection (transaction mode)"

_UNMIXED = (
    "Let it pool by session (PgBouncer: pool_mode = session), or name PostgreSQL itself; docs/deployment.md, Poolers."
)


async def look_at_database(url: str) -> Sequence[ReportLine]:
    """Reach it, and compare its schema and its clock with ours."""
    try:
        with as_config_errors():
            between = await pooling(url)
        if between is Pooling.TRANSACTION:
            return [DATABASE.failure(_MIXED, _UNMIXED)]
        async with open_database(url) as sessions, sessions() as db:
            before = time.time()
            there = await present_instant(db)
            now = (before + time.time()) / 2
            present, newest = await present_revision(db), await asyncio.to_thread(newest_revision)
            workers = [_workers(len(await live(db)))] if present == newest else []
    except ConfigError as error:
        return [
            DATABASE.failure(
                str(error), "See that PostgreSQL runs, and that DATABASE_URL names it, its user and password."
            )
        ]
    return [
        DATABASE.ok(f"PostgreSQL answers{', through a pooler in session mode' * (between is Pooling.SESSION)}"),
        _schema(present, newest),
        clock_line(DATABASE, "PostgreSQL", there.timestamp(), now),
        *workers,
    ]


def _workers(alive: int) -> ReportLine:
    """Say how many workers live; Temporal takes one that stopped for alive a while longer."""
    within = f"the last {LATELY.total_seconds():g} s"
    if not alive:
        return DATABASE.failure(f"no worker was alive in {within}", "Start workers (`worker.py`), and read their logs.")
    return DATABASE.ok(f"{alive} worker{'s' * (alive > 1)} alive in {within}")


def _schema(present: str | None, newest: str) -> ReportLine:
    if present == newest:
        return DATABASE.ok(f"migrated to {newest}, the newest")
    found = "was never migrated" if present is None else f"is at migration {present}, not at {newest}"
    to_do = "Run `cli.py migrate`, then restart workers and API; a database that is ahead needs the newer release."
    return DATABASE.failure(f"the database {found}", to_do)


TEMPORAL = Area("temporal")


_RPC_TIMEOUT = timedelta(seconds=5)

_POLLED_LATELY = 120.0  # seconds; a poll lasts one minute

_FILES = ("TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_SERVER_CA_CERT_PATH")


async def look_at_temporal(environ: Mapping[str, str], providers: Collection[Provider]) -> Sequence[ReportLine]:
    """Connect; in a namespace that is there, ask for each thing at once."""
    try:
        client = await connect(environ=environ, runtime=silent_runtime())
    except (RuntimeError, ValueError, OSError) as error:
        found = f"cannot be reached, so nothing there was looked at ({type(error).__name__})"
        return [
            TEMPORAL.failure(
                found, "See that the server runs, and set TEMPORAL_ADDRESS, and what TEMPORAL_TLS_* it needs."
            )
        ]
    namespace = await lines_of([Check(TEMPORAL, "namespace", partial(_namespace, client))], within=10.0)
    return namespace if namespace == [_no_namespace(client)] else namespace + await _look_within(client, providers)


async def _look_within(client: Client, providers: Collection[Provider]) -> list[ReportLine]:
    queues = {WORKFLOW_QUEUE: TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW}
    queues |= {push_queue(each): TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY for each in sorted(providers)}
    looks: dict[str, Callable[[], Awaitable[Sequence[ReportLine]]]] = {}
    looks |= {f"search attribute {name}": partial(_attribute, client, name) for name in SEARCH_ATTRIBUTES}
    looks |= {f"task queue {name}": partial(_queue, client, name, kind) for name, kind in queues.items()}
    looks[f"schedule {RETENTION}"] = partial(_schedule, client, RETENTION)
    return await lines_of([Check(TEMPORAL, what, look) for what, look in looks.items()], within=10.0)


async def look_at_temporals_certificate(environ: Mapping[str, str]) -> Sequence[ReportLine]:
    """See how long the server's certificate lasts, where TLS is on."""
    config = connection(environ)
    tls = config.get("tls")
    if not tls:
        return []
    trusted = tls.server_root_ca_cert if isinstance(tls, TLSConfig) else None
    try:
        context = ssl.create_default_context(cadata=trusted.decode() if trusted else None)
    except (ssl.SSLError, ValueError):  # no certificate: told with the files, and by the connection
        return []
    context.set_alpn_protocols(["h2"])
    name = tls.domain if isinstance(tls, TLSConfig) else None
    return await peer_lines(TEMPORAL, config["target_host"], context, name)


def look_at_temporals_files(environ: Mapping[str, str]) -> list[ReportLine]:
    """See how long the certificates last that this client shows and trusts."""
    return [line for name in _FILES if environ.get(name) for line in file_lines(TEMPORAL, name, Path(environ[name]))]


async def _namespace(client: Client) -> Sequence[ReportLine]:
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        await client.workflow_service.describe_namespace(request, timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            return [_refused("namespace", error)]
        return [_no_namespace(client)]
    return [TEMPORAL.ok(f"answers; namespace {client.namespace} is there")]


def _no_namespace(client: Client) -> ReportLine:
    to_do = "Create it (`temporal operator namespace create`), or name another one in TEMPORAL_NAMESPACE."
    return TEMPORAL.failure(f"there is no namespace {client.namespace}", to_do)


async def _attribute(client: Client, name: str) -> Sequence[ReportLine]:
    try:
        await client.count_workflows(f"{name} = 'doctor'", rpc_timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.INVALID_ARGUMENT:
            return [_refused(f"search attribute {name}", error)]
        to_do = f"temporal operator search-attribute create --name {name} --type Keyword (Temporal Cloud: its console)."
        return [TEMPORAL.failure(f"search attribute {name} is missing, so no workflow can start", to_do)]
    return [TEMPORAL.ok(f"search attribute {name} is there")]


async def _queue(client: Client, name: str, kind: TaskQueueType.ValueType) -> Sequence[ReportLine]:
    request = DescribeTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=name), task_queue_type=kind
    )
    try:
        answer = await client.workflow_service.describe_task_queue(request, timeout=_RPC_TIMEOUT)
    except RPCError as error:
        return [_refused(f"task queue {name}", error)]
    since = time.time() - _POLLED_LATELY
    workers = {each.identity for each in answer.pollers if each.last_access_time.seconds > since}
    if not workers:
        found = f"no worker asks for work at task queue {name}"
        return [
            TEMPORAL.failure(
                found, "Start workers (`worker.py`), with the settings of this provider, and read their logs."
            )
        ]
    return [TEMPORAL.ok(f"task queue {name}: {len(workers)} worker{'s' * (len(workers) > 1)}")]


async def _schedule(client: Client, name: str) -> Sequence[ReportLine]:
    try:
        schedule = await client.get_schedule_handle(name).describe(rpc_timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            return [_refused(f"schedule {name}", error)]
        return [
            TEMPORAL.failure(
                f"schedule {name} is missing", "A worker makes it within a minute: start one, and read its log."
            )
        ]
    if schedule.schedule.state.paused:
        to_do = f"temporal schedule toggle --unpause --schedule-id {name} --reason …"
        return [TEMPORAL.warning(f"schedule {name} is paused", to_do)]
    return [TEMPORAL.ok(f"schedule {name} is there")]


def _refused(what: str, error: RPCError) -> ReportLine:
    to_do = "See that the namespace is there, and that this client's key or certificate may ask for it."
    return TEMPORAL.failure(f"{what}: Temporal says {error.status.name}", to_do)


BEARERS = Area("bearer tokens")


_TIMEOUT = 5.0  # seconds


async def look_at_key_set(url: str) -> Sequence[ReportLine]:
    """See whether bearer tokens could be checked with what is at AUTH_JWKS_URL, which is reached without a proxy."""
    to_do = "Set AUTH_JWKS_URL to the address that the issuer names as jwks_uri, and let this machine reach it."
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT) as http, http.stream("GET", url, headers=UNCOMPRESSED) as answer:
            told = [*_told_by(BEARERS, "the issuer", answer)]
            answer.raise_for_status()
            usable = usable_keys(await read_bounded(answer))
    except httpx.HTTPStatusError as error:
        return [BEARERS.failure(f"the key set's address answers {error.response.status_code}", to_do)]
    except (httpx.HTTPError, OSError) as error:
        return [BEARERS.failure(f"the key set cannot be fetched ({type(error).__name__})", to_do)]
    except ValueError as error:
        return [BEARERS.failure(f"no key set is at AUTH_JWKS_URL ({type(error).__name__})", to_do), *told]
    if not usable:
        found = f"the key set has no key for {' or '.join(KeySet.algorithms)}"
        return [BEARERS.failure(found, "Let the issuer sign with RS256 (2 048 bits or more) or ES256."), *told]
    return [BEARERS.ok(f"the key set has {len(usable)} usable key{'s' * (len(usable) > 1)}"), *told]


async def look_at_clock(area: Area, url: str, ca_file: Path | None, proxies: Proxies) -> Sequence[ReportLine]:
    """Compare our clock with the Date that a provider's address answers with, whatever else it says."""
    proxy = proxies.towards(url)
    tls = ssl.create_default_context(cafile=ca_file)
    try:
        async with httpx.AsyncClient(
            timeout=_TIMEOUT, verify=tls, trust_env=False, proxy=proxy.url if proxy else None
        ) as http:
            answer = await http.get(url)
    except (httpx.HTTPError, OSError):  # told with the connection
        return []
    return [*_clock(area, url, answer)]


def _told_by(area: Area, whose: str, answer: httpx.Response) -> Iterator[ReportLine]:
    """Say what an answer tells beside its content: how long the certificate lasts, and the time."""
    seen = answer.extensions["network_stream"].get_extra_info("ssl_object")
    if seen is not None:
        yield expiry_line(area, whose, expiry(seen), "Ask whoever runs it to renew it.")
    yield from _clock(area, whose, answer)


def _clock(area: Area, whose: str, answer: httpx.Response) -> Iterator[ReportLine]:
    try:
        theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):  # it tells no time
        return
    yield clock_line(area, whose, theirs, time.time())
