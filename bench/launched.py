"""`python -m bench.launched without worker.py`, or `-m api`: that process, with metrics that are never recorded.

With `with` in its place it is as ever, but launched alike, so that the two can be compared.
"""

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
    how, *words = sys.argv[1:]
    if how == "without":
        _record_nothing()
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(sys.argv[0], run_name="__main__")


def _record_nothing() -> None:
    nothing = _Nothing()
    MetricWrapperBase.labels = lambda *_: nothing  # type: ignore[method-assign, assignment]
    for kind, name in ((Counter, "inc"), (Gauge, "set"), (Gauge, "set_to_current_time"), (Histogram, "observe")):
        setattr(kind, name, getattr(nothing, name))


if __name__ == "__main__":
    main()
