"""`python -m bench.launched worker.py`, or `-m api`: that process, with metrics and traces switched by signals.

SIGUSR1: both on. SIGUSR2: traces off. SIGHUP: both off.
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
_ORIGINAL = [(kind, name, getattr(kind, name)) for kind, name in _METRICS]
_IS_ON = tracing.is_on


def main() -> None:
    """Run the script or module that the arguments name."""
    signal.signal(signal.SIGUSR1, lambda *_: _switch(metrics=True, traces=True))
    signal.signal(signal.SIGUSR2, lambda *_: _switch(metrics=True, traces=False))
    signal.signal(signal.SIGHUP, lambda *_: _switch(metrics=False, traces=False))
    arguments = sys.argv[1:]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(sys.argv[0], run_name="__main__")


def _switch(*, metrics: bool, traces: bool) -> None:
    """Where no request begins a trace, nothing after it continues one."""
    tracing.is_on = _IS_ON if traces else _never
    for kind, name, recording in _ORIGINAL:
        setattr(kind, name, recording if metrics else _same if name == "labels" else _nothing)


def _never() -> bool:
    return False


def _same(metric: MetricWrapperBase, *_: object) -> MetricWrapperBase:
    return metric


def _nothing(*_: object) -> None: ...


if __name__ == "__main__":
    main()
