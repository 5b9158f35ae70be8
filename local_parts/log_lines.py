"""Reads the parts' log lines: JSON events, or plain text."""

import json
from dataclasses import dataclass
from typing import Any

_LEVELS = {"warning": "warning", "warn": "warning", "error": "error", "critical": "error", "fatal": "error"}
_PLACED = {"event", "msg", "level", "timestamp", "ts", "logger"}  # shown elsewhere, or of no use on a terminal


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a part: how grave it is, and how it reads."""

    level: str  # "error", "warning", or "" for what only the log file keeps
    text: str
    event: str = ""


def read_line(line: str, plain_level: str) -> LogLine:
    """Read a line; one that is not JSON has the level of the stream it came on."""
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        return LogLine(plain_level if line.strip() else "", line)
    event = str(fields.get("event") or fields.get("msg") or "")
    return LogLine(_LEVELS.get(str(fields.get("level")).lower(), ""), _readable(event, fields), event)


def _readable(event: str, fields: dict[str, Any]) -> str:
    more = " ".join(f"{name}={value}" for name, value in fields.items() if name not in _PLACED)
    return f"{event}  {more}" if more else event
