"""The page with the phones' lock screens, and the events that keep it live."""

import asyncio
import json
from collections.abc import AsyncIterator
from importlib.resources import files

from simulator import views
from simulator.phones import Phone, Phones

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
_SNAPSHOT_PLACE = "{{snapshot}}"
_INTERVAL = 0.25  # seconds between looks at the phones
_PHONES_SHOWN = 8
_LINES_SHOWN = 8
_BEATS_BETWEEN_COMMENTS = 60

Closing = asyncio.Event


def html(phones: Phones) -> str:
    """Write the page with the phones as they are now."""
    snapshot = json.dumps(_snapshot(phones)).replace("<", "\\u003c")  # no script element can be closed by content
    return files("simulator").joinpath("page.html").read_text().replace(_SNAPSHOT_PLACE, snapshot, 1)


async def events(phones: Phones, closing: Closing) -> AsyncIterator[str]:
    """Send a snapshot now and after every change, as server-sent events, until the simulator closes."""
    seen = -1
    beats = 0
    while not closing.is_set():
        if phones.version != seen:
            seen = phones.version
            yield f"data: {json.dumps(_snapshot(phones))}\n\n"
        beats += 1
        if beats % _BEATS_BETWEEN_COMMENTS == 0:
            yield ": still here\n\n"
        await asyncio.sleep(_INTERVAL)


def _snapshot(phones: Phones) -> dict[str, object]:
    known = list(phones)
    busiest = sorted(known, key=_latest, reverse=True)[:_PHONES_SHOWN]
    shown = [phone for phone in known if phone in busiest]
    return {
        "hidden": len(known) - len(shown),
        "phones": [
            views.phone_row(phone) | {"screen": [views.line_view(line) for line in phone.screen[:_LINES_SHOWN]]}
            for phone in shown
        ],
    }


def _latest(phone: Phone) -> float:
    return phone.log[-1].request.received_timestamp if phone.log else 0.0
