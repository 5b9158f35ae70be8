"""Teatime's backend: it says which pot steeps for whom and for how long, and Fastbell reminds the phones.

It needs Python alone. FASTBELL_URL is where Fastbell is, FASTBELL_KEY an API key with the scope `service`.
"""

import json
import os
import re
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

FASTBELL = os.environ.get("FASTBELL_URL", "http://127.0.0.1:8000")
PORT = int(os.environ.get("TEATIME_PORT", "8010"))


Answer = dict[str, object]


def ask(method: str, path: str, body: object = None) -> Answer:
    """Ask Fastbell, as the backend of this app; raises HTTPError."""
    headers = {"Authorization": f"Bearer {os.environ['FASTBELL_KEY']}", "Content-Type": "application/json"}
    request = Request(f"{FASTBELL}/v1/{path}", method=method, headers=headers)  # noqa: S310 -- our own address
    with urlopen(request, None if body is None else json.dumps(body).encode(), timeout=10) as answer:  # noqa: S310
        found: Answer = json.loads(answer.read())
        return found


def of(guest: str) -> str:
    """Begin the path of what belongs to a guest."""
    return f"users/{quote(guest, safe='')}"


def register_phone(guest: str, phone: Answer) -> Answer:
    """Say where a guest's phone is reached; its app reports this after each start."""
    about = {name: value for name, value in phone.items() if name != "id"}
    return ask("PUT", f"{of(guest)}/device-tokens/{phone['id']}", about)


def start_pot(guest: str, pot: Answer) -> Answer:
    """Let a pot steep: one reminder a minute before it is ready, one when it is. `id` makes a repeat harmless."""
    pot_id = pot.get("id") or str(uuid.uuid4())
    ready_at = datetime.now(UTC) + timedelta(seconds=float(str(pot["seconds"])))
    steeping = {"ends_at": ready_at.isoformat(), "reminder_minutes": [1, 0], "labels": {"tea": pot["tea"]}}
    kept = ask("PUT", f"{of(guest)}/fasting-sessions/{pot_id}", steeping)
    return {"id": kept["id"], "tea": pot["tea"], "ready_at": kept["ends_at"]}


def pour(guest: str, pot_id: str) -> Answer:
    """Pour a pot: it needs no more reminders."""
    kept = ask("POST", f"{of(guest)}/fasting-sessions/{pot_id}/end")
    return {"id": kept["id"], "state": "poured"}


ROUTES: dict[tuple[str, str], Callable[..., Answer]] = {
    ("PUT", r"/guests/([^/]+)/phone"): register_phone,
    ("POST", r"/guests/([^/]+)/pots"): start_pot,
    ("POST", r"/guests/([^/]+)/pots/([^/]+)/pour"): pour,
}


class Teatime(BaseHTTPRequestHandler):
    """The app's own API, without sign-in: this is an example."""

    def _answer(self) -> None:
        given = self.rfile.read(int(self.headers.get("content-length", 0)))
        for (method, path), handle in ROUTES.items():
            if method == self.command and (found := re.fullmatch(path, self.path)):
                try:
                    more = [json.loads(given)] if given else []
                    return self._send(200, handle(*found.groups(), *more))
                except HTTPError as error:  # Fastbell says what is wrong, and with which field
                    return self._send(error.code, json.loads(error.read()))
        return self._send(404, {"detail": "There is no such page."})

    do_PUT = do_POST = _answer  # noqa: N815 -- the names that http.server looks for

    def _send(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    if not os.environ.get("FASTBELL_KEY"):
        sys.exit("FASTBELL_KEY is not set. Make one: cli.py api-keys create --name teatime --scope service")
    ThreadingHTTPServer(("127.0.0.1", PORT), Teatime).serve_forever()
