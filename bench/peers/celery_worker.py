"""`celery --app bench.peers.celery_worker worker`: one task, with the settings that a careful user chooses.

The visibility timeout has to be longer than the longest ETA, or Redis hands out again what a living worker holds.
"""

import asyncio
import os
import threading
from datetime import UTC, datetime
from functools import cache

import uvloop
from celery import Celery

from bench.peers.sending import Senders

_PATIENCE = 20.0  # seconds for one send, as in Fastbell

app = Celery("peers", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": int(os.environ["VISIBILITY_TIMEOUT"]),
        "unacked_restore_interval": 5,  # seconds between looks for what was not acknowledged; the default is 100
        "unacked_restore_throttle": 1,
    },
)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Run an event loop in a thread of its own, for the sends of all threads of the pool."""
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


@cache
def _senders() -> Senders:
    async def make() -> Senders:
        return Senders()

    return asyncio.run_coroutine_threadsafe(make(), _loop()).result(_PATIENCE)


_LOCK = threading.Lock()


def _remind(provider: str, token: str) -> None:
    with _LOCK:  # the first of each process makes the clients
        senders = _senders()
    asyncio.run_coroutine_threadsafe(senders.send(provider, token), _loop()).result(_PATIENCE)


remind = app.task(name="remind", autoretry_for=(Exception,), retry_backoff=True, max_retries=None)(_remind)


def schedule(phones: list[tuple[str, str]], due: float) -> None:
    """Queue a reminder for each phone, as provider and token; `due` is in UNIX seconds."""
    at = datetime.fromtimestamp(due, UTC)
    with app.producer_pool.acquire(block=True) as producer:
        for phone in phones:
            remind.apply_async(phone, eta=at, producer=producer)
