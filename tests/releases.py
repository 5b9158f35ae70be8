"""The releases, as CHANGELOG.md names them."""

import re
from dataclasses import dataclass

from tests.servers import ROOT

_RELEASE = re.compile(r"^## (\d+\.\d+\.\d+)\n\nCommit `([0-9a-f]{40})`, migration (\d{4})\.$", re.MULTILINE)


@dataclass(frozen=True)
class Release:
    """A release: its version, its commit, and the newest migration that it has."""

    version: str
    commit: str
    migration: str


def releases() -> list[Release]:
    """List the releases, the latest first."""
    return [Release(*found) for found in _RELEASE.findall((ROOT / "CHANGELOG.md").read_text())]
