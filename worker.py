"""Composition root of the worker process: workflows, the sends of each configured provider, background tasks."""

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog
import uvloop
from temporalio.client import Client
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker

from activities.handoff import HandoffPlanning
from activities.housekeeping import Purging, Sweeping
from activities.reminders import ReminderOpening
from activities.sending import SEND_BUDGET, PushSending, SendDependencies
from activities.webhooks import FeedFollowing, WebhookDependencies
from db.engine import Sessions, make_engine, make_sessions
from db.webhooks import enabled as enabled_webhooks
from db.workers import identities
from dispatch.client import Metered, connect_when_up, leave, metered_runtime, reaches_temporal, watch
from dispatch.client import certificate_files as temporal_certificates
from dispatch.eraser import Eraser
from dispatch.relay import Relay
from dispatch.schedules import keep_registered
from dispatch.starts import follow_elsewhere
from dispatch.sweeper import Sweeper
from domain.events import MAX_WEBHOOKS
from domain.housekeeping import DEFAULT_KEEP, Keep
from domain.mass_failure import Threshold
from domain.naming import VERSION, WEBHOOK_QUEUE, WORKFLOW_QUEUE, push_queue
from domain.presentation import Presentations
from domain.push import Provider
from fleet.due_load import DueLoad
from fleet.heartbeat import Heartbeat, this_process
from fleet.interceptors import FreeingRunner, IdsInLogs, NamelessFailures
from fleet.signals import FleetSignals
from fleet.takeover import Takeover
from fleet.token_error_cutoff import TokenErrorCutoff
from push.limiter.registry import DEFAULT_TIMINGS, LimiterGauges, RouteLimiters
from push.limiter.settings import Limits, Timings
from push.registry import SenderRegistry
from settings import logs
from settings.credentials import certificate_files, make_rotation
from settings.environment import (
    ConfigError,
    ServiceSettings,
    limiter_settings,
    retention_settings,
    service_settings,
    tracing_settings,
)
from settings.presentations import PresentationFiles
from telemetry import metrics, tracing
from telemetry.certificates import CertificateExpiry
from telemetry.exposition import MetricsServer, expose
from workflows.fasting_reminder import FastingReminder
from workflows.housekeeping import OrphanSweep, Retention
from workflows.message_handoff import MessageHandoff, SendingPage
from workflows.redrive import DiagnosticPush, Redrive
from workflows.webhook_follower import WebhookFollower

GRACE = SEND_BUDGET + timedelta(seconds=5)  # at shutdown: longer than a send, so that none is cut off and made twice
MAX_HELD = 20_000  # armed sends per provider; each costs a few KB, and must exceed arm window times rate
_MISSED_AFTER = timedelta(seconds=5)  # a workflow task that waits for a killed worker goes to another one then
_COLLECT_EVERY = 5.0  # seconds between collections of what is new
_COLLECT_ALL_EVERY = 3_600.0  # seconds
_COLLECT_PATIENCE = 30  # seconds of waiting for a quiet moment
_CACHED_WORKFLOWS = 2_000  # more than are awake at once, about 60 KB each; other sleepers cost rows, not memory

T = TypeVar("T")

log = structlog.get_logger()


def make_workers(
    client: Client,
    sessions: Sessions,
    dependencies: SendDependencies,
    keep: Keep = DEFAULT_KEEP,
    webhooks: WebhookDependencies | None = None,
) -> list[Worker]:
    """Make one worker for the workflows, one for webhooks, and one for the sends of each provider."""
    opening, planning = ReminderOpening(sessions), HandoffPlanning(sessions)
    sweeping, purging = Sweeping(sessions, client), Purging(sessions, keep)
    workers = [
        Worker(
            client,
            task_queue=WORKFLOW_QUEUE,
            workflows=[
                *(FastingReminder, MessageHandoff, SendingPage, Redrive, DiagnosticPush),
                *(OrphanSweep, Retention, WebhookFollower),  # followers of before 0.2.0 started here
            ],
            activities=[
                opening.open_reminder,
                opening.close_tasks,
                planning.plan_handoff,
                planning.more_sends,
                sweeping.restart_sessions,
                sweeping.restart_handoffs,
                sweeping.mark_orphans_dead,
                purging.purge,
            ],
            no_remote_activities=True,
            workflow_runner=FreeingRunner(),
            interceptors=[IdsInLogs(), NamelessFailures()],
            max_cached_workflows=_CACHED_WORKFLOWS,
            max_concurrent_workflow_tasks=100,
            max_concurrent_local_activities=50,
            sticky_queue_schedule_to_start_timeout=_MISSED_AFTER,
            workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(10),
            graceful_shutdown_timeout=GRACE,
        ),
        Worker(  # of its own, so that no webhook takes a send's place
            client,
            task_queue=WEBHOOK_QUEUE,
            workflows=[WebhookFollower],
            workflow_runner=FreeingRunner(),
            max_cached_workflows=MAX_WEBHOOKS,
            sticky_queue_schedule_to_start_timeout=_MISSED_AFTER,
            activities=[FeedFollowing(sessions, webhooks or WebhookDependencies()).follow_feed],
            interceptors=[IdsInLogs(), NamelessFailures()],
            max_concurrent_activities=MAX_WEBHOOKS,
            activity_task_poller_behavior=PollerBehaviorSimpleMaximum(2),
            graceful_shutdown_timeout=GRACE,
        ),
    ]
    for provider in sorted(dependencies.apps.providers):
        sending = PushSending(provider, sessions, dependencies)
        dependencies.takeover.serve(provider, sending.take_over)
        workers.append(
            Worker(
                client,
                task_queue=push_queue(provider),
                activities=[sending.send_push],
                interceptors=[IdsInLogs(), NamelessFailures()],
                max_concurrent_activities=MAX_HELD,
                activity_task_poller_behavior=PollerBehaviorSimpleMaximum(10),
                graceful_shutdown_timeout=GRACE,
            )
        )
    return workers


async def main() -> None:
    """Work until SIGTERM or SIGINT, then finish the sends in flight."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings = service_settings()
    logs.configure(settings.log_format, settings.log_level)
    keep, rotation, presented = _keep(), make_rotation(), PresentationFiles(settings)
    if endpoint := tracing_settings().endpoint:
        tracing.start(tracing_settings().otel_service_name or "fastbell-worker", endpoint)
    if not rotation.apps.providers:
        raise ConfigError(
            "No provider is configured: set APNS_KEY_FILE, FCM_SERVICE_ACCOUNT_FILE or APPS_FILE (see .env.example)."
        )

    engine = make_engine(settings.database_url.get_secret_value(), pool_size=settings.database_pool_size)
    sessions = make_sessions(engine)
    dependencies, metered = (
        make_send_dependencies(sessions, rotation.apps, presentations=presented.presentations),
        metered_runtime(),
    )
    fleet = FleetSignals(sessions, settings.database_url.get_secret_value(), rotation.apps)
    metrics_server = _serve(settings, metered, dependencies.limiters, fleet)
    background_tasks = [asyncio.create_task(fleet.read_forever())]
    client = await _or_stopped(stop, connect_when_up(metered.runtime))
    if client is not None:
        sweeper = Sweeper(sessions, Sweeping(sessions, client))
        heartbeat = Heartbeat(
            sessions,
            dependencies.limiters,
            dependencies.cutoff,
            process=this_process(),
            reaches_temporal=reaches_temporal,
        )
        background_tasks += [
            asyncio.create_task(Relay(sessions, client, settings.arm_window).sweep_forever()),
            asyncio.create_task(rotation.follow()),
            asyncio.create_task(presented.follow()),
            asyncio.create_task(heartbeat.beat_forever()),
            asyncio.create_task(dependencies.takeover.run_forever(heartbeat.worker_id)),
            asyncio.create_task(keep_registered(client)),
            asyncio.create_task(sweeper.sweep_forever()),
            asyncio.create_task(Eraser(sessions, client).erase_forever()),
            asyncio.create_task(watch(client)),
        ]
        dependencies.takeover.after_losses(partial(_follow_elsewhere, client, sessions))
        webhooks = WebhookDependencies(settings.webhooks_allow_private, is_busy=dependencies.due_load.is_near)
        await _work(make_workers(client, sessions, dependencies, keep, webhooks), dependencies.due_load, stop)
    for task in background_tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    if client is not None:
        await heartbeat.leave()
        await sweeper.leave()
    metrics_server.close()
    await rotation.close()
    await engine.dispose()
    log.info("worker stopped")


def make_send_dependencies(
    sessions: Sessions,
    apps: SenderRegistry,
    environ: Mapping[str, str] = os.environ,
    timings: Timings = DEFAULT_TIMINGS,
    presentations: Presentations | None = None,
) -> SendDependencies:
    """Make what sending needs, with the limits that are set. Without `presentations` the files are read once."""
    settings = limiter_settings(environ)
    limits = {
        Provider.APNS: Limits(settings.apns_concurrency, settings.apns_rate or None),
        Provider.FCM: Limits(settings.fcm_concurrency, settings.fcm_rate or None),
    }
    window = timedelta(seconds=settings.brake_window)
    limiters = RouteLimiters(limits, timings)
    cutoff = TokenErrorCutoff(sessions, limiters, Threshold(settings.brake_share, settings.brake_token_errors, window))
    presentations = presentations or PresentationFiles(service_settings(environ)).presentations
    return SendDependencies(apps, DueLoad(), limiters, cutoff, presentations, Takeover(sessions))


def _keep() -> Keep:
    settings = retention_settings()
    days = (settings.retention_days, settings.log_retention_days, settings.event_retention_days)
    return Keep(*(timedelta(days=each) for each in days))


async def _follow_elsewhere(client: Client, sessions: Sessions, living: Collection[UUID]) -> None:
    """Have the webhooks followed by the living that a lost worker followed."""
    async with sessions() as db:
        hooks, processes = await enabled_webhooks(db), await identities(db, living)
    moved = [await follow_elsewhere(client, webhook_id, processes) for webhook_id in hooks]
    if any(moved):
        log.warning("webhooks of a lost worker are followed by others", count=sum(moved))


def _serve(settings: ServiceSettings, metered: Metered, limiters: RouteLimiters, fleet: FleetSignals) -> MetricsServer:
    """Serve the metrics, even while Temporal and the database are down; raises ConfigError."""
    for provider, app_id in fleet.apps.keys:
        metrics.expect(provider, metrics.app(app_id))
    certificates = CertificateExpiry(certificate_files() | temporal_certificates())
    exposition = expose(metrics.WORKER, [LimiterGauges(limiters, fleet.apps), fleet, certificates], metered.port)
    try:
        return MetricsServer(settings.metrics_host, settings.metrics_port, exposition.text)
    except OSError as error:
        raise ConfigError(f"METRICS_HOST and METRICS_PORT: listening there failed: {error.strerror}.") from None


async def _or_stopped(stop: asyncio.Event, wanted: Coroutine[Any, Any, T]) -> T | None:
    """Wait for `wanted`; None when the process is stopped before."""
    task, stopped = asyncio.ensure_future(wanted), asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        return task.result()
    task.cancel()
    return None


async def _work(workers: Sequence[Worker], due_load: DueLoad, stop: asyncio.Event) -> None:
    """Run all workers until `stop` or until one of them fails, then let sends in flight finish."""
    running = [asyncio.create_task(worker.run()) for worker in workers]
    collecting = asyncio.create_task(_collect_in_quiet_moments(due_load))
    stopped = asyncio.ensure_future(stop.wait())
    log.info("worker ready", version=VERSION, queues=[worker.task_queue for worker in workers])
    await asyncio.wait({*running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    collecting.cancel()
    log.info("worker stopping")
    shutting_down = [asyncio.ensure_future(worker.shutdown()) for worker in workers]
    _, hanging = await asyncio.wait([*shutting_down, *running], timeout=(GRACE + timedelta(seconds=5)).total_seconds())
    if hanging:  # an activity that does not end at its timeout
        log.warning("worker did not stop in time")
        return
    await asyncio.gather(*running)


async def _collect_in_quiet_moments(due_load: DueLoad) -> None:
    """Free the cycles that are left, of which there are few, while no send is near: a collection stops the process.

    What has outlived one is left out of the next ones, so that they take as long as what is new: milliseconds, where
    2 000 cached workflows take 0.15 s. Cycles among what was left out are freed once an hour.
    """
    gc.freeze()  # leaves out what there is now: modules and classes
    gc.set_threshold(5_000, 10, 1_000)  # young objects rarely, because of bursts; all others only here
    thaws_at = time.monotonic() + _COLLECT_ALL_EVERY
    while True:
        await asyncio.sleep(_COLLECT_EVERY)
        for _ in range(_COLLECT_PATIENCE):
            if not due_load.is_near():
                break
            await asyncio.sleep(1.0)
        if time.monotonic() >= thaws_at:
            gc.unfreeze()
            thaws_at = time.monotonic() + _COLLECT_ALL_EVERY
        gc.collect()
        gc.freeze()


if __name__ == "__main__":
    try:
        uvloop.run(main())
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        leave(1)
    except Exception:
        log.exception("worker failed")
        leave(1)
    tracing.stop()
    leave(0)
