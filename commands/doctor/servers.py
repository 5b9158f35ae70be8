"""The doctor's look at Temporal: namespace, search attributes, workers at each queue, schedules, our certificates."""

import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode, TLSConfig

from commands.doctor_certificates import file_lines, peer_lines
from commands.doctor_lines import Area, Check, Line, lines_of
from domain.naming import RETENTION, SEARCH_ATTRIBUTES, WORKFLOW_QUEUE, push_queue
from domain.push import Provider
from temporal import connect, connection, silent_runtime

AREA = Area("temporal")

_RPC_TIMEOUT = timedelta(seconds=5)
_POLLED_LATELY = 120.0  # seconds; a poll lasts one minute
_FILES = ("TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_SERVER_CA_CERT_PATH")


async def look_at_temporal(environ: Mapping[str, str], providers: Collection[Provider]) -> Sequence[Line]:
    """Connect; in a namespace that is there, ask for each thing at once."""
    try:
        client = await connect(environ=environ, runtime=silent_runtime())
    except (RuntimeError, ValueError, OSError) as error:
        found = f"cannot be reached, so nothing there was looked at ({type(error).__name__})"
        return [
            AREA.failure(found, "See that the server runs, and set TEMPORAL_ADDRESS, and what TEMPORAL_TLS_* it needs.")
        ]
    namespace = await lines_of([Check(AREA, "namespace", partial(_namespace, client))], within=10.0)
    return namespace if namespace == [_no_namespace(client)] else namespace + await _look_within(client, providers)


async def _look_within(client: Client, providers: Collection[Provider]) -> list[Line]:
    queues = {WORKFLOW_QUEUE: TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW}
    queues |= {push_queue(each): TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY for each in sorted(providers)}
    looks: dict[str, Callable[[], Awaitable[Sequence[Line]]]] = {}
    looks |= {f"search attribute {name}": partial(_attribute, client, name) for name in SEARCH_ATTRIBUTES}
    looks |= {f"task queue {name}": partial(_queue, client, name, kind) for name, kind in queues.items()}
    looks[f"schedule {RETENTION}"] = partial(_schedule, client, RETENTION)
    return await lines_of([Check(AREA, what, look) for what, look in looks.items()], within=10.0)


async def look_at_temporals_certificate(environ: Mapping[str, str]) -> Sequence[Line]:
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
    return await peer_lines(AREA, config["target_host"], context, name)


def look_at_temporals_files(environ: Mapping[str, str]) -> list[Line]:
    """See how long the certificates last that this client shows and trusts."""
    return [line for name in _FILES if environ.get(name) for line in file_lines(AREA, name, Path(environ[name]))]


async def _namespace(client: Client) -> Sequence[Line]:
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        await client.workflow_service.describe_namespace(request, timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            return [_refused("namespace", error)]
        return [_no_namespace(client)]
    return [AREA.ok(f"answers; namespace {client.namespace} is there")]


def _no_namespace(client: Client) -> Line:
    to_do = "Create it (`temporal operator namespace create`), or name another one in TEMPORAL_NAMESPACE."
    return AREA.failure(f"there is no namespace {client.namespace}", to_do)


async def _attribute(client: Client, name: str) -> Sequence[Line]:
    try:
        await client.count_workflows(f"{name} = 'doctor'", rpc_timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.INVALID_ARGUMENT:
            return [_refused(f"search attribute {name}", error)]
        to_do = f"temporal operator search-attribute create --name {name} --type Keyword (Temporal Cloud: its console)."
        return [AREA.failure(f"search attribute {name} is missing, so no workflow can start", to_do)]
    return [AREA.ok(f"search attribute {name} is there")]


async def _queue(client: Client, name: str, kind: TaskQueueType.ValueType) -> Sequence[Line]:
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
            AREA.failure(found, "Start workers (`worker.py`), with the settings of this provider, and read their logs.")
        ]
    return [AREA.ok(f"task queue {name}: {len(workers)} worker{'s' * (len(workers) > 1)}")]


async def _schedule(client: Client, name: str) -> Sequence[Line]:
    try:
        schedule = await client.get_schedule_handle(name).describe(rpc_timeout=_RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            return [_refused(f"schedule {name}", error)]
        return [
            AREA.failure(
                f"schedule {name} is missing", "A worker makes it within a minute: start one, and read its log."
            )
        ]
    if schedule.schedule.state.paused:
        to_do = f"temporal schedule toggle --unpause --schedule-id {name} --reason …"
        return [AREA.warning(f"schedule {name} is paused", to_do)]
    return [AREA.ok(f"schedule {name} is there")]


def _refused(what: str, error: RPCError) -> Line:
    to_do = "See that the namespace is there, and that this client's key or certificate may ask for it."
    return AREA.failure(f"{what}: Temporal says {error.status.name}", to_do)
