"""How far a run is: a bar on a terminal, a line per phase elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_WIDTH = 30
_REFRESH = 0.1  # seconds


class Progress:
    """One phase. Bars go to standard error, so that the report can be kept."""

    def __init__(self, name: str, total: int) -> None:
        self._name = name
        self._total = max(total, 1)
        self._began = time.monotonic()
        self._shown_at = 0.0
        self._is_terminal = sys.stderr.isatty()

    def show(self, done: int) -> None:
        """Tell how many are done."""
        now = time.monotonic()
        if self._is_terminal and now - self._shown_at >= _REFRESH:
            self._shown_at = now
            full = _WIDTH * min(done, self._total) // self._total
            bar = "█" * full + "·" * (_WIDTH - full)
            sys.stderr.write(f"\r  {self._name:<32} {bar} {done}/{self._total} \x1b[K")
            sys.stderr.flush()

    def finish(self) -> None:
        """Tell how long it took."""
        self.tell(f"{self._name:<32} {time.monotonic() - self._began:6.1f} s")

    def tell(self, what: str) -> None:
        """Leave a line behind."""
        begin, end = ("\r", "\x1b[K") if self._is_terminal else ("", "")
        sys.stderr.write(f"{begin}  {what}{end}\n")
        sys.stderr.flush()


@contextmanager
def phase(name: str, total: int = 1) -> Iterator[Progress]:
    """Show a phase until the block is left."""
    progress = Progress(name, total)
    progress.show(0)
    yield progress
    progress.finish()
