"""The addresses of a host, tried side by side: one that does not answer holds nobody up (Happy Eyeballs, RFC 8305).

https://www.rfc-editor.org/rfc/rfc8305
"""

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple, TypeVar

NEXT_AFTER = 0.25  # seconds without a connection until the next address is tried, too (section 5)
SILENT_AFTER = 0.25  # seconds more, where it connects and then says nothing: the port may be open and nobody behind it
ADDRESSES_AT_MOST = 16
T = TypeVar("T")


class Address(NamedTuple):
    """Where a host can be reached."""

    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]  # as its family has it

    @property
    def host(self) -> str:
        """The address as text."""
        return str(self.sockaddr[0])


async def resolved(host: str, port: int) -> list[Address]:
    """Ask for all addresses of a host, both families in turn; raises OSError, UnicodeError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(Address(family, sockaddr) for family, _, _, _, sockaddr in found))
    like_first = [address for address in addresses if address.family == addresses[0].family]
    others = [address for address in addresses if address.family != addresses[0].family]
    in_turn = chain.from_iterable(zip_longest(like_first, others))
    return [address for address in in_turn if address is not None][:ADDRESSES_AT_MOST]


async def first(
    addresses: Sequence[Address],
    attempt: Callable[[Address, Callable[[], None]], Awaitable[T]],
    *,
    discard: Callable[[T], None] = lambda _: None,
) -> T:
    """Give what the first attempt comes to that succeeds; the others are cancelled. Raises what the last one raised.

    An attempt calls back when its address has connected. `discard` gets what a second success came to.
    """
    trouble: BaseException = OSError("no address")
    running: set[asyncio.Task[T]] = set()
    waiting = deque(addresses)
    try:
        while waiting or running:
            connected = asyncio.Event()
            if waiting:
                running.add(asyncio.create_task(_attempted(attempt, waiting.popleft(), connected)))
            done, running = await _wait(running, NEXT_AFTER if waiting else None)
            if not done and connected.is_set():
                done, running = await _wait(running, SILENT_AFTER)
            while done:
                ended = done.pop()
                trouble = ended.exception() or trouble
                if ended.exception() is None:
                    running |= done  # a second success in the very same moment
                    return ended.result()
        raise trouble
    finally:
        await _give_up(running, discard)


async def _attempted(
    attempt: Callable[[Address, Callable[[], None]], Awaitable[T]], address: Address, connected: asyncio.Event
) -> T:
    return await attempt(address, connected.set)


async def _wait(
    running: set[asyncio.Task[T]], within: float | None
) -> tuple[set[asyncio.Task[T]], set[asyncio.Task[T]]]:
    return await asyncio.wait(running, timeout=within, return_when=asyncio.FIRST_COMPLETED)


async def _give_up(running: set[asyncio.Task[T]], discard: Callable[[T], None]) -> None:
    for task in running:
        task.cancel()
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        if not isinstance(outcome, BaseException):
            discard(outcome)
