"""The signals of the last hours, each with its figure and its small chart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from api.console.charts import Column
from api.console.figures import count, seconds, share
from domain.analytics import Step


@dataclass(frozen=True, slots=True)
class Trend:
    """One signal."""

    title: str
    tone: str
    figure: str  # of all the hours
    note: str
    columns: list[Column]


def of(steps: Sequence[Step]) -> list[Trend]:
    """Make them of what was counted."""
    pushes, accepted, calls = (sum(getattr(step, name) for step in steps) for name in ("pushes", "accepted", "calls"))
    refused, synced = sum(step.refused for step in steps), sum(step.synced for step in steps)
    withdrawn = sum(step.withdrawn for step in steps)
    invalid, superseded = sum(step.invalid_tokens for step in steps), sum(step.superseded for step in steps)
    return [
        Trend(
            "Pushes due",
            "fate",
            count(pushes),
            f"{count(accepted)} accepted, {count(withdrawn)} withdrawn; hatched: not accepted",
            [_due(step) for step in steps],
        ),
        Trend(
            "Lateness",
            "spread",
            seconds(_worst(step.late_p99 for step in steps)),
            "due to accepted, without test pushes: the worst 99th percentile; solid: median",
            [_spread(step, step.late_p50, step.late_p99) for step in steps],
        ),
        Trend(
            "Provider latency",
            "spread",
            seconds(_worst(step.call_p99 for step in steps)),
            "the worst 99th percentile; solid: median",
            [_spread(step, step.call_p50, step.call_p99) for step in steps],
        ),
        Trend(
            "Provider errors",
            "bad",
            share(refused, calls),
            f"{count(refused)} of {count(calls)} calls were not accepted",
            [_part(step, step.refused, step.calls, "calls not accepted") for step in steps],
        ),
        Trend(
            "Invalid tokens",
            "bad",
            count(invalid),
            "calls that came back as unregistered",
            [_part(step, step.invalid_tokens, step.calls, "calls found the token invalid") for step in steps],
        ),
        Trend(
            "Collapsed",
            "plain",
            share(superseded, pushes),
            f"{count(superseded)} superseded before they were accepted",
            [_part(step, step.superseded, step.pushes, "pushes superseded") for step in steps],
        ),
        Trend(
            "Push to sync",
            "plain",
            share(synced, accepted),
            f"{count(synced)} of {count(accepted)} accepted were synced",
            [_part(step, step.synced, step.accepted, "accepted pushes synced") for step in steps],
        ),
        Trend(
            "Dead",
            "bad",
            count(sum(step.dead for step in steps)),
            "due in these hours, ended without acceptance",
            [_part(step, step.dead, step.pushes, "pushes dead") for step in steps],
        ),
    ]


def _due(step: Step) -> Column:
    words = f"{count(step.pushes)} due, {count(step.withdrawn)} withdrawn, {count(step.accepted)} accepted"
    return _column(step, words, step.accepted, step.pushes - step.withdrawn)


def _column(step: Step, words: str, lower: float, upto: float) -> Column:
    return Column(f"{step.at:%H:%M} UTC: {words}", lower, max(upto - lower, 0.0))


def _part(step: Step, part: int, whole: int, words: str) -> Column:
    return _column(step, f"{count(part)} of {count(whole)} {words}", part, part)


def _spread(step: Step, median: float | None, highest: float | None) -> Column:
    if median is None or highest is None:
        return _column(step, "none", 0, 0)
    words = f"median {seconds(median)}, 99th percentile {seconds(highest)}"
    return _column(step, words, max(median, 0.0), max(highest, 0.0))


def _worst(found: Iterable[float | None]) -> float | None:
    return max((each for each in found if each is not None), default=None)
