"""What the processes of a stack use of the machine, sampled while a run goes on."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import psutil

OTHERS = "others"  # whatever else runs on this machine, the benchmark itself excepted
_INTERVAL = 0.25  # seconds between samples
_MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at all processes."""

    at: float  # UNIX seconds
    cpu: Mapping[str, float]  # seconds since each began, by part
    memory: Mapping[str, float]  # resident megabytes, by part


@dataclass(slots=True)
class Usage:
    """The samples of a run."""

    pids: Mapping[str, int]
    samples: list[Sample] = field(default_factory=list)

    def look(self) -> Sample:
        """Take a sample now."""
        cpu, memory = {}, {}
        for part, pid in self.pids.items():
            cpu[part], memory[part] = _family(pid)
        cpu[OTHERS] = _machine() - sum(cpu.values()) - _family(os.getpid(), and_children=False)[0]
        sample = Sample(time.time(), cpu, memory)
        self.samples.append(sample)
        return sample

    def cpu_between(self, since: float, until: float) -> dict[str, float]:
        """Seconds of CPU by part between two instants, interpolated between samples."""
        before, after = self._cpu_at(since), self._cpu_at(until)
        return {part: after[part] - before[part] for part in after}

    def peak_memory(self) -> dict[str, float]:
        """Give the highest resident megabytes by part."""
        return {part: max(sample.memory[part] for sample in self.samples) for part in self.pids}

    def _cpu_at(self, instant: float) -> dict[str, float]:
        later = next((i for i, sample in enumerate(self.samples) if sample.at >= instant), len(self.samples) - 1)
        one, two = self.samples[max(later - 1, 0)], self.samples[later]
        share = min(max((instant - one.at) / (two.at - one.at), 0.0), 1.0) if two.at > one.at else 1.0
        return {part: one.cpu[part] + share * (two.cpu[part] - one.cpu[part]) for part in two.cpu}


@asynccontextmanager
async def watching(pids: Mapping[str, int]) -> AsyncIterator[Usage]:
    """Sample until the block is left."""
    usage = Usage(pids)
    usage.look()
    task = asyncio.create_task(_watch(usage))
    try:
        yield usage
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _watch(usage: Usage) -> None:
    while True:
        await asyncio.sleep(_INTERVAL)
        usage.look()


def _family(pid: int, *, and_children: bool = True) -> tuple[float, float]:
    """CPU seconds and megabytes of a process and its children; a parent keeps the time of those that are gone.

    PostgreSQL's processes share memory: theirs is counted more than once.
    """
    parent = psutil.Process(pid)
    times = parent.cpu_times()
    cpu, memory = times.user + times.system, float(parent.memory_info().rss)
    if and_children:
        cpu += times.children_user + times.children_system
        for child in parent.children():
            with suppress(psutil.NoSuchProcess):
                used = child.cpu_times()
                cpu += used.user + used.system
                memory += child.memory_info().rss
    return cpu, memory / _MEGABYTE


def _machine() -> float:
    """CPU seconds of everything that runs here; `steal` is what other virtual machines took."""
    times = psutil.cpu_times()
    return float(sum(times)) - times.idle - getattr(times, "iowait", 0.0)
