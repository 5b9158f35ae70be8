"""`python -m simulator`: runs until SIGTERM or SIGINT."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable

from simulator.running import Simulator
from simulator.settings import ProcessSettings


async def _run(settings: ProcessSettings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    gc.set_threshold(100_000, 50, 100)  # it keeps much and frees little, so collecting often only costs time
    async with Simulator.start(run_dir=settings.run_dir, ports=settings.ports, apps=settings.apps) as simulator:
        sys.stdout.write(f"Provider simulator: {simulator.url}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    """Run with the environment's settings."""
    settings = ProcessSettings.read(os.environ)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(_run(settings))
        except OSError as error:
            raise SystemExit(f"The simulator cannot start: {error}") from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 (absent on Windows)
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
