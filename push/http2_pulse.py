"""Whether the peer of a connection is still there: silence is answered with a PING, and a missing answer with a cut."""

import asyncio
from collections.abc import Callable

QUIET_AFTER = 30.0  # seconds of silence after which a connection gives a sign of life before it is used
PING_EVERY = 3600.0  # seconds; Apple: check an idle connection once an hour
ANSWERS_WITHIN = 0.3  # seconds; Apple takes a tenth of that. One PING asks after calls that take longer
ALIVE_WITHIN = 1.0  # seconds in which a PING is answered, or the connection is given up
STOOD_STILL = 0.1  # seconds that a timer may be late before the process counts as held up


class Pulse:
    """Watches one connection."""

    def __init__(self, *, within: float, send_ping: Callable[[], None], on_death: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._within = within
        self._send_ping = send_ping
        self._on_death = on_death
        self._idle = self._loop.call_later(PING_EVERY, self._check_idle)
        self._verdict: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
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
        self._forget()

    def spoke(self) -> None:
        """Note that the peer was asked something; one that says nothing at all for too long is asked for a PING."""
        if not self._silence:
            self._silence = self._loop.call_later(ANSWERS_WITHIN, self.ask)

    def ask(self) -> None:
        """Demand a sign of life."""
        if not self._verdict:
            self._wait_for_life()
            self._send_ping()

    def stop(self) -> None:
        """Watch no longer."""
        self._idle.cancel()
        self._forget()

    def _forget(self) -> None:
        for timer in (self._verdict, self._silence):
            if timer:
                timer.cancel()
        self._verdict = self._silence = None

    def _wait_for_life(self) -> None:
        self._verdict = self._loop.call_later(self._within, self._judge, self._loop.time() + self._within)

    def _judge(self, at: float) -> None:
        if self._loop.time() - at > STOOD_STILL:  # what the peer said meanwhile may not be read yet
            self._wait_for_life()
        else:
            self._on_death()

    def _check_idle(self) -> None:
        if self.quiet:
            self.ask()
        self._idle = self._loop.call_later(PING_EVERY, self._check_idle)
