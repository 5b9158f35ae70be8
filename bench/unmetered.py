"""`python -m bench.unmetered worker.py`, or `-m api`: that process, with metrics that are never recorded."""

import runpy
import sys
from typing import Any, Self

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase


class _Nothing:
    """Takes whatever would be recorded."""

    def labels(self, *_: Any) -> Self:  # noqa: ANN401 -- as prometheus_client has it
        return self

    def inc(self, *_: Any) -> None: ...  # noqa: ANN401

    def set(self, *_: Any) -> None: ...  # noqa: ANN401

    def set_to_current_time(self) -> None: ...

    def observe(self, *_: Any) -> None: ...  # noqa: ANN401


def main() -> None:
    """Run what the arguments name as if it had been started by itself."""
    nothing = _Nothing()
    MetricWrapperBase.labels = lambda *_: nothing  # type: ignore[method-assign, assignment]
    for kind, name in ((Counter, "inc"), (Gauge, "set"), (Gauge, "set_to_current_time"), (Histogram, "observe")):
        setattr(kind, name, getattr(nothing, name))
    if sys.argv[1] == "-m":
        sys.argv = sys.argv[2:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
