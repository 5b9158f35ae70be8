"""`python -m bench.launched worker.py`, or `-m api`: that process, whose metrics and traces can be switched off and on.

SIGUSR1: as ever. SIGUSR2: no traces. SIGHUP: no metrics either.
"""

import runpy
import signal
import sys

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from telemetry import tracing

_METRICS = (
    (MetricWrapperBase, "labels"),
    (Counter, "inc"),
    (Gauge, "inc"),
    (Gauge, "dec"),
    (Gauge, "set"),
    (Gauge, "set_to_current_time"),
    (Histogram, "observe"),
)


_AS_EVER = [(kind, name, getattr(kind, name)) for kind, name in _METRICS]
_IS_ON = tracing.is_on


def main() -> None:
    """Run what the arguments name as if it had been started by itself."""
    signal.signal(signal.SIGUSR1, lambda *_: _switch(metrics=True, traces=True))
    signal.signal(signal.SIGUSR2, lambda *_: _switch(metrics=True, traces=False))
    signal.signal(signal.SIGHUP, lambda *_: _switch(metrics=False, traces=False))
    words = sys.argv[1:]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(sys.argv[0], run_name="__main__")


def _switch(*, metrics: bool, traces: bool) -> None:
    """Where no request begins a trace, nothing behind it has one to go on with."""
    tracing.is_on = _IS_ON if traces else _never
    for kind, name, recording in _AS_EVER:
        setattr(kind, name, recording if metrics else _same if name == "labels" else _nothing)


def _never() -> bool:
    return False


def _same(metric: MetricWrapperBase, *_: object) -> MetricWrapperBase:
    return metric


def _nothing(*_: object) -> None: ...


if __name__ == "__main__":
    main()
