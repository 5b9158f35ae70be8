"""What reached the providers, and when, as the simulator's sockets saw it."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from bench.load import Person
from bench.progress import Progress

_PAGE = 1000
_STEPS = 40  # of the progress bar


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When each phone's push was there; UNIX seconds, sorted."""

    received: dict[str, list[float]]  # by provider
    lost: int  # phones whose push never came
    doubled: int  # pushes accepted beyond the first, of any phone
    refused: int  # requests that were not accepted
    last: int  # the number of the last request

    @property
    def instants(self) -> list[float]:
        """All of them, the earliest first."""
        return sorted(instant for instants in self.received.values() for instant in instants)


async def wait_for(simulator_url: str, count: int, until: float, progress: Progress) -> None:
    """Wait until so many requests were made, or until an instant; reads single rows, which costs little."""
    seen, step = 0, max(count // _STEPS, 1)
    async with _client(simulator_url) as http:
        while seen < count and time.time() < until:
            wanted = min(seen + step, count)
            if await _page(http, wanted - 1, limit=1):
                seen = wanted
                progress.show(seen)
            else:
                await asyncio.sleep(0.1)


async def read_all(simulator_url: str, crowd: Sequence[Person], after: int = 0) -> Arrivals:
    """Read the wire log after its first `after` requests."""
    accepted: Counter[str] = Counter()
    received: dict[str, list[float]] = {"apns": [], "fcm": []}
    refused = 0
    async with _client(simulator_url) as http:
        while page := await _page(http, after, limit=_PAGE):
            after = page[-1]["number"]
            for request in page:
                if request["status"] != 200:
                    refused += 1
                    continue
                if not accepted[request["token"]]:
                    received[request["provider"]].append(datetime.fromisoformat(request["received_at"]).timestamp())
                accepted[request["token"]] += 1
    return Arrivals(
        received={provider: sorted(instants) for provider, instants in received.items()},
        lost=sum(not accepted[person.token] for person in crowd),
        doubled=sum(count - 1 for count in accepted.values()),
        refused=refused,
        last=after,
    )


def _client(simulator_url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=simulator_url, timeout=60, trust_env=False)


async def _page(http: httpx.AsyncClient, after: int, limit: int) -> list[dict[str, Any]]:
    answer = await http.get("/requests", params={"after": after, "limit": limit})
    items: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
    return items
