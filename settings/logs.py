"""Logs: events with fields; JSON in production, readable on a terminal; never a token, never text."""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

from telemetry import tracing


def configure(log_format: str, log_level: str) -> None:
    """Send all logs, the libraries' too, to standard output in one form."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stdout.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_exception,
        _name_span,
        _first_line,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[log_level]),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=log_level, force=True)
    for chatty in ("httpx", "httpcore", "aioapns", "hpack", "h2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def name_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401 -- structlog's signature
    """Log an exception's type and place only: its text may quote a token or a row of the database."""
    exc_info = event.pop("exc_info", None)
    error = sys.exc_info()[1] if exc_info is True else exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)[-8:]
        event["error_type"] = f"{type(error).__module__}.{type(error).__qualname__}"
        event["error_at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return event


def _name_span(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401 -- structlog's signature
    """Add the ids of the current trace, where there is one."""
    event.update(tracing.current_ids())
    return event


def _first_line(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401 -- structlog's signature
    """Keep a message's first line: asyncio puts the text of a lost task's exception on the next."""
    event["event"] = str(event["event"]).partition("\n")[0]
    return event
