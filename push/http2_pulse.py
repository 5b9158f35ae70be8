"""Whether the peer of a connection is still there: silence is answered with a PING, and a missing answer with a cut."""

import asyncio
from collections.abc import Callable

QUIET_AFTER = 30.0  # seconds of silence after which a connection gives a sign of life before it is used
PING_EVERY = 3600.0  # seconds; Apple: check an idle connection once an hour


class Pulse:
    """Watches one connection."""

    def __init__(self, *, within: float, send_ping: Callable[[], None], on_death: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._within = within
        self._send_ping = send_ping
        self._on_death = on_death
        self._idle = self._loop.call_later(PING_EVERY, self._check_idle)
        self._verdict: asyncio.TimerHandle | None = None
        self.heard_at = self._loop.time()

    @property
    def asked(self) -> bool:
        """Whether a sign of life is awaited."""
        return self._verdict is not None

    @property
    def quiet(self) -> bool:
        """Whether nothing was heard for so long that the peer may be gone."""
        return self._loop.time() - self.heard_at > QUIET_AFTER

    def heard(self) -> None:
        """Note a sign of life."""
        self.heard_at = self._loop.time()
        if self._verdict:
            self._verdict.cancel()
            self._verdict = None

    def ask(self) -> None:
        """Demand a sign of life."""
        if not self._verdict:
            self._verdict = self._loop.call_later(self._within, self._on_death)
            self._send_ping()

    def stop(self) -> None:
        """Watch no longer."""
        self._idle.cancel()
        if self._verdict:
            self._verdict.cancel()

    def _check_idle(self) -> None:
        if self.quiet:
            self.ask()
        self._idle = self._loop.call_later(PING_EVERY, self._check_idle)
