"""Logs: events with fields, also those of libraries; never an exception's text."""

import asyncio
import json
import subprocess
import sys

import pytest

from tests.busy import crowding
from tests.stack import ROOT

TOKEN = "f00d" * 16
PROGRAM = """
import asyncio, logging, sys
import structlog
from settings import logs

logs.configure(sys.argv[1], "INFO")
log = structlog.get_logger("fastbell")

def fail():
    try:
        raise KeyError(TOKEN)
    except KeyError as error:
        raise ValueError(f"no such token: {TOKEN}") from error

TOKEN = sys.argv[2]
log.info("registered", device_id=7)
log.debug("not shown")
try:
    fail()
except ValueError as error:
    log.exception("ours failed", device_id=7)
    log.error("ours failed again", exc_info=error)
    logging.getLogger("library").exception("theirs failed")
    logging.getLogger("library").error("theirs failed again: %s", "why", exc_info=sys.exc_info())
log.warning("nothing is wrong", exc_info=True)
logging.getLogger("httpx").info("not shown")

async def lose_a_task():
    async def failing():
        fail()
    task = asyncio.create_task(failing())
    await asyncio.sleep(0.01)
    del task

asyncio.run(lose_a_task())
"""


async def logged(log_format: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", PROGRAM, log_format, TOKEN],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30 * crowding(),
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


async def test_every_line_is_an_event_with_its_level_its_logger_and_its_time() -> None:
    lines = [json.loads(line) for line in (await logged("json")).splitlines()]

    assert [(line["event"], line["level"], line["logger"]) for line in lines] == [
        ("registered", "info", "fastbell"),
        ("ours failed", "error", "fastbell"),
        ("ours failed again", "error", "fastbell"),
        ("theirs failed", "error", "library"),
        ("theirs failed again: why", "error", "library"),
        ("nothing is wrong", "warning", "fastbell"),
        ("Task exception was never retrieved", "error", "asyncio"),
    ]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert (lines[0]["device_id"], lines[1]["device_id"]) == (7, 7)


async def test_an_exception_is_reported_by_its_type_and_its_place() -> None:
    lines = [json.loads(line) for line in (await logged("json")).splitlines()]

    failures = [line for line in lines if "error_type" in line]
    assert [line["event"] for line in failures] == [
        "ours failed",
        "ours failed again",
        "theirs failed",
        "theirs failed again: why",
        "Task exception was never retrieved",
    ]
    for line in failures:
        assert line["error_type"] == "builtins.ValueError"
        assert line["error_at"][-1] == "<string>:13 fail"


@pytest.mark.parametrize("log_format", ["json", "console", "auto"])
async def test_no_exceptions_text_is_ever_in_a_log(log_format: str) -> None:
    assert TOKEN not in await logged(log_format)


async def test_what_libraries_say_about_each_request_is_not_logged() -> None:
    assert "not shown" not in await logged("json")
