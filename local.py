"""Everything on one laptop: `make run`."""

import asyncio
import os
import signal
import sys
from typing import Any

from demo.parts import NotReady, Parts, Terminal
from demo.settings import LocalSettings, check_ports, local_settings, locked
from demo.start import start_and_demonstrate
from settings.environment import ConfigError


async def main() -> int:
    """Run until Ctrl-C, or until a part ends; gives the exit status."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        settings = local_settings(os.environ)
        with locked(settings.run_dir):
            check_ports(settings)
            return await _run(settings, Terminal(sys.stdout), stop)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1


async def _run(settings: LocalSettings, terminal: Terminal, stop: asyncio.Event) -> int:
    parts = Parts(terminal)
    starting = asyncio.create_task(start_and_demonstrate(settings, terminal, parts))
    stopping = asyncio.create_task(stop.wait())
    until: list[asyncio.Future[Any]] = [stopping, parts.first_ended]
    try:
        await asyncio.wait([starting, *until], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            terminal.say("Stopping.")
            return 0
        ended = parts.first_ended.result()
        terminal.say(terminal.colour(f"{ended.name} ended unexpectedly, so everything stops. Its last lines:", "error"))
        parts.show_last_lines(ended)
    except NotReady as error:
        terminal.say(terminal.colour(str(error), "error"))
    finally:
        starting.cancel()
        await asyncio.wait({starting})
        await parts.stop()
    return 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
