"""Percentiles of what was measured; apart, so that a measured process imports little beside its sender."""

from collections.abc import Sequence


def percentile(ordered: Sequence[float], share: float) -> float:
    """Give the value that so large a share does not exceed."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")
