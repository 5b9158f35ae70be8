"""The admin API's JSON."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from simulator.faults import ActiveFault
from simulator.phones import FormerToken, Phone, Phones, Receipt, ScreenLine
from simulator.wire import WireRequest

_REQUEST = ("number", "provider", "environment", "app", "token", "message_id", "status", "reason", "headers", "payload")
_LINE = ("title", "body", "data", "collapse_key", "level", "channel", "sound", "badge")


def phone_row(phone: Phone) -> dict[str, Any]:
    """Show a phone in the list."""
    return _shown(phone, "token", "name", "provider", "environment", "app", "state", "permission", "locale") | {
        "uninstalled_at": _instant(phone.uninstalled_timestamp),
        "lines": len(phone.screen),
        "accepted": phone.accepted_count,
        "last_received_at": _instant(_latest(phone)),
    }


def phone_detail(phone: Phone) -> dict[str, Any]:
    """Show a phone with its screen, newest line first, and its log, oldest entry first."""
    return phone_row(phone) | {
        "screen": [line_view(line) for line in phone.screen],
        "log": [_receipt(receipt) for receipt in phone.log],
    }


def line_view(line: ScreenLine) -> dict[str, Any]:
    """Show a line on a lock screen."""
    shown = _shown(line, "times_received") | _shown(line.notification, *_LINE)
    return shown | {"has_sounded": line.notification.has_sound, "shown_at": _instant(line.shown_timestamp)}


def rotation(phone: Phone, former: FormerToken, former_token: str) -> dict[str, Any]:
    """Show a phone with its new token and its former one."""
    return phone_row(phone) | {"former_token": former_token, "former_token_dies_at": _instant(former.dies_timestamp)}


def tapped(line: ScreenLine) -> dict[str, Any]:
    """Show what the app gets from a tap on a line."""
    return {name: line.data.get(name) for name in ("task_id", "kind", "url")} | {"line": line_view(line)}


def wire_request(request: WireRequest) -> dict[str, Any]:
    """Show a request on the wire, refused ones included."""
    return _shown(request, *_REQUEST) | {"received_at": _instant(request.received_timestamp)}


def fault_row(active: ActiveFault) -> dict[str, Any]:
    """Show a fault and how often it struck."""
    fields = active.fault.model_dump(mode="json", exclude_defaults=True)
    return fields | {"id": active.id, "struck": active.struck, "active": not active.is_over}


def _receipt(receipt: Receipt) -> dict[str, Any]:
    sounded_at = _instant(receipt.sounded_timestamp)
    shown = _shown(receipt, "fate", "reason") | _shown(receipt.request, "message_id", "headers", "payload")
    shown |= _shown(receipt.notification, "level", "channel", "sound")
    shown["received_at"] = _instant(receipt.request.received_timestamp)
    return shown | ({"sounded_at": sounded_at} if sounded_at else {})


def _shown(thing: object, *names: str) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in names}


def _instant(timestamp: float | None) -> str | None:
    """Write an aware UTC instant with microseconds."""
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="microseconds")


POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
_PLACEHOLDER = "{{snapshot}}"
_INTERVAL = 0.25  # seconds between looks at the phones
_MAX_PHONES = 8
_MAX_LINES = 8
_CYCLES_BETWEEN_COMMENTS = 60


def html(phones: Phones) -> str:
    """Write the page with the phones as they are now."""
    snapshot = json.dumps(_snapshot(phones)).replace("<", "\\u003c")  # so that no content can close the script element
    return files("simulator").joinpath("page.html").read_text().replace(_PLACEHOLDER, snapshot, 1)


async def events(phones: Phones, closing: asyncio.Event) -> AsyncIterator[str]:
    """Send a snapshot now and after every change, as server-sent events, until the simulator closes."""
    seen = -1
    cycles = 0
    while not closing.is_set():
        if phones.version != seen:
            seen = phones.version
            yield f"data: {json.dumps(_snapshot(phones))}\n\n"
        cycles += 1
        if cycles % _CYCLES_BETWEEN_COMMENTS == 0:
            yield ": still here\n\n"
        await asyncio.sleep(_INTERVAL)


def _snapshot(phones: Phones) -> dict[str, object]:
    known = list(phones)
    busiest = sorted(known, key=lambda phone: _latest(phone) or 0.0, reverse=True)[:_MAX_PHONES]
    shown = [phone for phone in known if phone in busiest]
    return {
        "hidden": len(known) - len(shown),
        "phones": [
            phone_row(phone) | {"screen": [line_view(line) for line in phone.screen[:_MAX_LINES]]} for phone in shown
        ],
    }


def _latest(phone: Phone) -> float | None:
    return phone.log[-1].request.received_timestamp if phone.log else None
