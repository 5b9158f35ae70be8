"""What a scraped page says."""

from collections import Counter
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


def samples(*pages: str) -> list[Any]:
    """Read the samples of pages, as of one page."""
    return [sample for page in pages for family in text_string_to_metric_families(page) for sample in family.samples]


def by(found: list[Any], name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """Sum a metric's series by these labels; what is nought is left out."""
    counted = Counter[tuple[str, ...]]()
    for sample in found:
        if sample.name == name and sample.value:
            counted[tuple(sample.labels[label] for label in labels)] += int(sample.value)
    return counted
