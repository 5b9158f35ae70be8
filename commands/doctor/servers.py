"""The doctor's checks of servers: PostgreSQL, Temporal, the issuer's key set, and their clocks."""

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
    Finding,
    ReportLine,
    clock_line,
    counted,
    expiry,
    expiry_line,
    file_lines,
    lines_of,
    peer_lines,
)
from db.engine import Pooling, pooling, present_instant
from db.migrate import newest_revision, present_revision, revisions
from db.workers import LATELY, live
from dispatch.client import connect, connection, silent_runtime, why
from domain.naming import RETENTION, SEARCH_ATTRIBUTES, WORKFLOW_QUEUE, push_queue
from domain.push import Provider
from push.http2.proxy import Proxies
from settings.environment import ConfigError

DATABASE = Area("database")


async def check_database(url: str) -> Sequence[ReportLine]:
    """Connect, and compare its schema and its clock with ours."""
    try:
        with as_config_errors():
            between = await pooling(url)
        if between is Pooling.TRANSACTION:
            return [DATABASE.failure(Finding.POOLER)]
        async with open_database(url) as sessions, sessions() as db:
            asked_at = time.time()
            there = (await present_instant(db)).timestamp()
            clock = clock_line(DATABASE, "PostgreSQL", there, asked_at, time.time())
            present, newest = await present_revision(db), await asyncio.to_thread(newest_revision)
            is_behind = present is None or (present != newest and present in revisions())
            workers = [] if is_behind else [_workers(len(await live(db)))]
    except ConfigError as error:
        return [DATABASE.failure(Finding.DATABASE, error=error)]
    through = ", through a pooler in session mode" if between is Pooling.SESSION else ""
    return [
        DATABASE.ok(Finding.DATABASE_OK, through=through),
        _schema(present, newest),
        clock,
        *workers,
    ]


def _workers(alive: int) -> ReportLine:
    """Say how many workers live. Temporal counts a stopped worker as alive for longer."""
    within = LATELY.total_seconds()
    if not alive:
        return DATABASE.failure(Finding.NO_WORKERS, within=within)
    return DATABASE.ok(Finding.WORKERS, workers=counted(alive, "worker"), within=within)


def _schema(present: str | None, newest: str) -> ReportLine:
    if present == newest:
        return DATABASE.ok(Finding.MIGRATED, newest=newest)
    if present is None:
        return DATABASE.failure(Finding.NEVER_MIGRATED)
    if present not in revisions():
        return DATABASE.warning(Finding.NEWER_MIGRATION, present=present)
    return DATABASE.failure(Finding.OTHER_MIGRATION, present=present, newest=newest)


TEMPORAL = Area("temporal")
_RPC_TIMEOUT = timedelta(seconds=5)
_POLLED_LATELY = 120.0  # seconds; a poll lasts one minute
_FILES = ("TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_SERVER_CA_CERT_PATH")


async def check_temporal(environ: Mapping[str, str], providers: Collection[Provider]) -> Sequence[ReportLine]:
    """Connect; in an existing namespace, check everything at once."""
    try:
        client = await connect(environ=environ, runtime=silent_runtime())
    except (RuntimeError, ValueError, OSError) as error:
        cause = str(error).rstrip(".") if isinstance(error, ConfigError) else why(error)
        return [TEMPORAL.failure(Finding.TEMPORAL_AWAY, error=cause)]
    namespace = await lines_of([Check(TEMPORAL, "namespace", partial(_namespace, client))], within=10.0)
    return namespace if namespace == [_no_namespace(client)] else namespace + await _check_within(client, providers)


async def _check_within(client: Client, providers: Collection[Provider]) -> list[ReportLine]:
    queues = {WORKFLOW_QUEUE: TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW}
    queues |= {push_queue(each): TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY for each in sorted(providers)}
    checks: dict[str, Callable[[], Awaitable[Sequence[ReportLine]]]] = {}
    checks |= {f"search attribute {name}": partial(_attribute, client, name) for name in SEARCH_ATTRIBUTES}
    checks |= {f"task queue {name}": partial(_queue, client, name, kind) for name, kind in queues.items()}
    checks[f"schedule {RETENTION}"] = partial(_schedule, client, RETENTION)
    return await lines_of([Check(TEMPORAL, what, run) for what, run in checks.items()], within=10.0)


async def check_temporals_certificate(environ: Mapping[str, str]) -> Sequence[ReportLine]:
    """Check until when the server's certificate is valid, if TLS is on."""
    config = connection(environ)
    tls = config.get("tls")
    if not tls:
        return []
    trusted = tls.server_root_ca_cert if isinstance(tls, TLSConfig) else None
    try:
        context = ssl.create_default_context(cadata=trusted.decode() if trusted else None)
    except (ssl.SSLError, ValueError):  # no certificate: reported with the files, and by the connection
        return []
    context.set_alpn_protocols(["h2"])
    name = tls.domain if isinstance(tls, TLSConfig) else None
    return await peer_lines(TEMPORAL, config["target_host"], context, name)


def check_temporals_files(environ: Mapping[str, str]) -> list[ReportLine]:
    """Check until when the certificates are valid that this client shows and trusts."""
    return [line for name in _FILES if environ.get(name) for line in file_lines(TEMPORAL, name, Path(environ[name]))]


async def _namespace(client: Client) -> Sequence[ReportLine]:
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        await client.workflow_service.describe_namespace(request, timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            return [_refused("namespace", error)]
        return [_no_namespace(client)]
    return [TEMPORAL.ok(Finding.NAMESPACE_OK, name=client.namespace)]


def _no_namespace(client: Client) -> ReportLine:
    return TEMPORAL.failure(Finding.NO_NAMESPACE, name=client.namespace)


async def _attribute(client: Client, name: str) -> Sequence[ReportLine]:
    try:
        await client.count_workflows(f"{name} = 'doctor'", rpc_timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.INVALID_ARGUMENT:
            return [_refused(f"search attribute {name}", error)]
        return [TEMPORAL.failure(Finding.NO_ATTRIBUTE, name=name)]
    return [TEMPORAL.ok(Finding.ATTRIBUTE_OK, name=name)]


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
        return [TEMPORAL.failure(Finding.NO_QUEUE, name=name)]
    return [TEMPORAL.ok(Finding.QUEUE_OK, name=name, workers=counted(len(workers), "worker"))]


async def _schedule(client: Client, name: str) -> Sequence[ReportLine]:
    try:
        schedule = await client.get_schedule_handle(name).describe(rpc_timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            return [_refused(f"schedule {name}", error)]
        return [TEMPORAL.failure(Finding.NO_SCHEDULE, name=name)]
    if schedule.schedule.state.paused:
        return [TEMPORAL.warning(Finding.SCHEDULE_PAUSED, name=name)]
    return [TEMPORAL.ok(Finding.SCHEDULE_OK, name=name)]


def _refused(what: str, error: RPCError) -> ReportLine:
    return TEMPORAL.failure(Finding.RPC_FAILED, what=what, status=error.status.name)


BEARERS = Area("bearer tokens")
_TIMEOUT = 5.0  # seconds


async def check_key_set(url: str) -> Sequence[ReportLine]:
    """Check whether the key set at AUTH_JWKS_URL can check bearer tokens. It is fetched without a proxy."""
    address = "Set AUTH_JWKS_URL to the issuer's jwks_uri, and let this machine reach it."
    asked_at = time.time()
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT) as http, http.stream("GET", url, headers=UNCOMPRESSED) as answer:
            others = [*_certificate_and_clock(BEARERS, "the issuer", answer, asked_at)]
            answer.raise_for_status()
            usable = usable_keys(await read_bounded(answer))
    except httpx.HTTPStatusError as error:
        return [BEARERS.failure(Finding.KEY_SET_STATUS, status=error.response.status_code, address=address)]
    except (httpx.HTTPError, OSError) as error:
        return [BEARERS.failure(Finding.KEY_SET_AWAY, error=type(error).__name__, address=address)]
    except ValueError as error:
        return [BEARERS.failure(Finding.NO_KEY_SET, error=type(error).__name__, address=address), *others]
    if not usable:
        return [BEARERS.failure(Finding.NO_KEYS, algorithms=" or ".join(KeySet.algorithms)), *others]
    return [BEARERS.ok(Finding.KEYS_OK, keys=counted(len(usable), "usable key")), *others]


async def check_clock(area: Area, url: str, ca_file: Path | None, proxies: Proxies) -> Sequence[ReportLine]:
    """Compare our clock with the Date header of an answer of the provider, whatever its status."""
    proxy = proxies.towards(url)
    tls = ssl.create_default_context(cafile=ca_file)
    asked_at = time.time()
    try:
        async with httpx.AsyncClient(
            timeout=_TIMEOUT, verify=tls, trust_env=False, proxy=proxy.url if proxy else None
        ) as http:
            answer = await http.get(url)
    except (httpx.HTTPError, OSError):  # reported by the check of the connection
        return []
    return [*_clock(area, url, answer, asked_at)]


def _certificate_and_clock(area: Area, whose: str, answer: httpx.Response, asked_at: float) -> Iterator[ReportLine]:
    """Check what an answer shows besides its content: the certificate and the clock."""
    tls = answer.extensions["network_stream"].get_extra_info("ssl_object")
    if tls is not None:
        yield expiry_line(area, whose, expiry(tls), "Ask its operator to renew it.")
    yield from _clock(area, whose, answer, asked_at)


def _clock(area: Area, whose: str, answer: httpx.Response, asked_at: float) -> Iterator[ReportLine]:
    try:
        theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):  # no usable Date header
        return
    yield clock_line(area, whose, theirs, asked_at, time.time())
