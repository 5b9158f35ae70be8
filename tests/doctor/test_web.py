"""Key sets, clocks, and checks that never end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from commands.doctor.report import Area, Check, Finding, Level, ReportLine, clock_line, lines_of
from commands.doctor.servers import check_clock, check_key_set
from push.http2.proxy import DIRECT
from tests.api.issuer import open_issuer
from tests.doctor.conftest import Examine
from tests.stack import SECRET

AREA = Area("test")


@asynccontextmanager
async def dated(at: datetime) -> AsyncIterator[str]:
    """Serve somebody whose clock says so."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        date = format_datetime(at, usegmt=True)
        writer.write(f"HTTP/1.1 404 No\r\nDate: {date}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("ahead", "level", "found"),
    [
        (0.5, Level.OK, "the clock agrees with that of X"),
        (-1.9, Level.OK, "the clock agrees with that of X"),
        (4, Level.WARNING, "this machine's clock is 4.0 s ahead of that of X"),
        (-60, Level.FAILURE, "this machine's clock is 60.0 s behind that of X"),
    ],
)
def test_clocks_are_compared(ahead: float, level: Level, found: str) -> None:
    line = clock_line(AREA, "X", 1000.0, 1000.0 + ahead, 1000.0 + ahead)

    assert (line.level, line.found) == (level, found)


def test_an_answer_that_was_slow_is_no_fault_of_a_clock() -> None:
    assert clock_line(AREA, "X", 1000.0, 999.0, 1030.0).level is Level.OK
    assert clock_line(AREA, "X", 1000.0, 970.0, 1001.0).level is Level.OK


async def test_a_provider_that_tells_another_time() -> None:
    async with dated(datetime.now(UTC) + timedelta(hours=1)) as url:
        [line] = await check_clock(AREA, url, None, DIRECT)

    assert line.level is Level.FAILURE
    assert line.found.startswith("this machine's clock is 3")
    assert line.found.endswith(f" s behind that of {url}")


async def test_a_key_set_is_good_for_the_keys_that_are_in_use() -> None:
    async with open_issuer() as issuer:
        empty = await check_key_set(issuer.url)
        issuer.add("one", rsa.generate_private_key(public_exponent=65537, key_size=2048))
        issuer.add("two", ec.generate_private_key(ec.SECP256R1()))
        good = await check_key_set(issuer.url)
        issuer.keys.clear()
        issuer.add("p384", ec.generate_private_key(ec.SECP384R1()))
        useless = await check_key_set(issuer.url)
        issuer.answer = b"<html>"
        no_set = await check_key_set(issuer.url)
        issuer.status = 404
        missing = await check_key_set(issuer.url)
    gone = await check_key_set(issuer.url)

    assert [_told(lines) for lines in (empty, good, useless, no_set, missing, gone)] == [
        ("failure", "the key set has no key for RS256 or ES256"),
        ("ok", "the key set has 2 usable keys"),
        ("failure", "the key set has no key for RS256 or ES256"),
        ("failure", "no key set is at AUTH_JWKS_URL (JSONDecodeError)"),
        ("failure", "the key set's address answers 404"),
        ("failure", "the key set cannot be fetched (ConnectError)"),
    ]


async def test_an_issuer_whose_tokens_are_for_others_too(examine: Examine) -> None:
    async with open_issuer() as issuer:
        issuer.add("one", ec.generate_private_key(ec.SECP256R1()))
        lines = await examine(AUTH_JWT_SECRET="", AUTH_JWKS_URL=issuer.url, AUTH_AUDIENCE="*")
        both = await examine(offline=True, AUTH_JWT_SECRET=SECRET, AUTH_JWKS_URL=issuer.url, AUTH_AUDIENCE="us")

    assert [line.found.partition(":")[0] for line in lines] == ["AUTH_AUDIENCE is * and AUTH_ISSUER is not set"]
    assert both[0].found.startswith("set only one of AUTH_JWT_SECRET and AUTH_JWKS_URL")


async def test_a_check_that_never_ends_or_breaks_hides_no_other() -> None:
    async def never() -> list[ReportLine]:
        await asyncio.Event().wait()
        return []

    async def breaks() -> list[ReportLine]:
        raise KeyError("hush-hush")

    async def good() -> list[ReportLine]:
        return [AREA.ok(Finding.KEY_OK, name="good")]

    looks = {"never": never, "breaks": breaks, "good": good}
    lines = await lines_of([Check(AREA, what, look) for what, look in looks.items()], within=0.05)

    assert [(line.level, line.found) for line in lines] == [
        ("failure", "never: no answer within 0.05 s"),
        ("failure", "breaks: could not be checked (KeyError)"),
        ("ok", "good: the key signs"),
    ]


def _told(lines: object) -> tuple[str, str]:
    assert isinstance(lines, list)
    line: ReportLine = lines[0]
    return line.level.value, line.found
