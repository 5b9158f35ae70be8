"""Composition root of the worker process: workflows, the sends of each configured provider, the outbox sweeper."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import structlog
import uvloop
from temporalio.client import Client
from temporalio.worker import PollerBehaviorSimpleMaximum, UnsandboxedWorkflowRunner, Worker

import logs
from activities.failures import NamelessFailures
from activities.push_sending import PushSending
from activities.reminders import ReminderOpening
from activities.rush import Rush
from config import ApnsSettings, ConfigError, FcmSettings, apns_settings, fcm_settings, service_settings
from db.engine import Sessions, make_engine, make_sessions
from domain.naming import WORKFLOW_QUEUE, push_queue
from domain.push import Provider
from push.apns import ApnsAccount, ApnsSender
from push.fcm import FcmAccount, FcmSender
from push.sender import Sender
from push.senders import Apps
from relay import Relay
from temporal import connect_when_up, runtime_with_metrics
from workflows.fan_out import SEND_BUDGET
from workflows.fasting_reminder import FastingReminder

GRACE = SEND_BUDGET + timedelta(seconds=5)  # at shutdown: longer than a send, so that none is cut off and made twice
MOST_HELD = 20_000  # armed sends per provider; each costs a few KB, and must exceed arm window times rate
_CACHED_WORKFLOWS = 2_500  # more than are awake at once, at some 80 KB each; sleepers beyond cost rows, not memory

T = TypeVar("T")

log = structlog.get_logger()


def make_workers(client: Client, sessions: Sessions, apps: Apps) -> list[Worker]:
    """Make one worker for the workflows and one for the sends of each provider.

    Unsandboxed: the sandbox costs more CPU than all else a workflow does; replayed histories guard determinism.
    """
    opening = ReminderOpening(sessions)
    workers = [
        Worker(
            client,
            task_queue=WORKFLOW_QUEUE,
            workflows=[FastingReminder],
            activities=[opening.open_reminder, opening.close_tasks],
            no_remote_activities=True,
            workflow_runner=UnsandboxedWorkflowRunner(),
            interceptors=[NamelessFailures()],
            max_cached_workflows=_CACHED_WORKFLOWS,
            max_concurrent_workflow_tasks=100,
            max_concurrent_local_activities=50,
            workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(10),
            graceful_shutdown_timeout=GRACE,
        )
    ]
    rush = Rush()
    for provider in sorted(apps.providers):
        sending = PushSending(provider, apps, sessions, rush)
        workers.append(
            Worker(
                client,
                task_queue=push_queue(provider),
                activities=[sending.send_push],
                interceptors=[NamelessFailures()],
                max_concurrent_activities=MOST_HELD,
                activity_task_poller_behavior=PollerBehaviorSimpleMaximum(10),
                graceful_shutdown_timeout=GRACE,
            )
        )
    return workers


async def main() -> None:
    """Work until SIGTERM or SIGINT, then finish what is under way."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings, apns, fcm = service_settings(), apns_settings(), fcm_settings()
    logs.configure(settings.log_format, settings.log_level)
    apps = make_apps(apns, fcm)
    if not apps.providers:
        raise ConfigError(
            "No provider is configured: set APNS_KEY_FILE or FCM_SERVICE_ACCOUNT_FILE (see .env.example)."
        )

    engine = make_engine(settings.database_url.get_secret_value(), pool_size=settings.database_pool_size)
    sessions = make_sessions(engine)
    runtime = runtime_with_metrics(settings.metrics_host, settings.metrics_port)
    client = await _unless(stop, connect_when_up(runtime))
    if client is not None:
        relay = Relay(sessions, client, settings.arm_window)
        sweeper = asyncio.create_task(relay.sweep_forever())
        await _work(make_workers(client, sessions, apps), stop)
        sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await sweeper
    await apps.close()
    await engine.dispose()
    log.info("worker stopped")


def make_apps(apns: ApnsSettings | None, fcm: FcmSettings | None) -> Apps:
    """Make the sender of each provider that is configured; raises ConfigError when its credentials cannot be used."""
    senders: dict[tuple[Provider, str | None], Sender] = {}
    if apns is not None:
        with _config_errors("APNS_KEY_FILE"):
            senders[Provider.APNS, None] = ApnsSender(ApnsAccount(**apns.model_dump()))
    if fcm is not None:
        with _config_errors("FCM_SERVICE_ACCOUNT_FILE"):
            senders[Provider.FCM, None] = FcmSender(FcmAccount(**fcm.model_dump()))
    return Apps(senders)


@contextmanager
def _config_errors(variable: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"{variable} names a file that cannot be used: {type(error).__name__}.") from None


async def _unless(stop: asyncio.Event, wanted: Coroutine[Any, Any, T]) -> T | None:
    """Wait for what is wanted; None when the process is told to stop before."""
    task, stopped = asyncio.ensure_future(wanted), asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        return task.result()
    task.cancel()
    return None


async def _work(workers: Sequence[Worker], stop: asyncio.Event) -> None:
    """Run all workers until told to stop or until one of them fails; then let sends under way finish."""
    running = [asyncio.create_task(worker.run()) for worker in workers]
    gc.freeze()  # what was imported stays, so it need not be looked through
    gc.set_threshold(5_000, 10, 10)  # rare enough for a burst, often enough for the cycles that evicted workflows leave
    stopped = asyncio.ensure_future(stop.wait())
    log.info("worker ready", queues=[worker.task_queue for worker in workers])
    await asyncio.wait({*running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    log.info("worker stopping")
    shutting_down = [asyncio.ensure_future(worker.shutdown()) for worker in workers]
    _, hanging = await asyncio.wait([*shutting_down, *running], timeout=(GRACE + timedelta(seconds=5)).total_seconds())
    if hanging:  # the SDK waits for a local activity that fails and is retried, for one while PostgreSQL is away
        log.warning("worker did not stop in time")
        return
    await asyncio.gather(*running)


if __name__ == "__main__":
    try:
        uvloop.run(main())
    except ConfigError as error:
        sys.exit(str(error))
    sys.stdout.flush()
    os._exit(0)  # the SDK's threads may crash an interpreter that shuts down (sdk-python #300)
