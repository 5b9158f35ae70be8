"""Where a local run keeps its state, and the settings it left there."""

import shlex
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_directory(environ: Mapping[str, str]) -> Path:
    """Name the directory: RUN_DIR, or `.run` beside the code."""
    named = environ.get("RUN_DIR")
    return Path(named).expanduser().resolve() if named else ROOT / ".run"


def read_settings(run_dir: Path) -> dict[str, str]:
    """Read `run.env` back; empty where nothing ever ran."""
    try:
        lines = shlex.split((run_dir / "run.env").read_text())
    except (OSError, ValueError):  # none, or not as we wrote it
        return {}
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, _, value in pairs}
