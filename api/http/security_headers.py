"""Headers that restrict what browsers may do with an answer: of the API, and of our own pages."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# JSON needs nothing. The pages of the API's documentation contain a script and load more from here.
_NOTHING = b"default-src 'none'; frame-ancestors 'none'"

_DOCUMENTATION = (
    b"default-src 'none'; script-src 'unsafe-inline' 'self'; style-src 'unsafe-inline' 'self'; img-src data: 'self';"
    b" worker-src blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)

_EVERYWHERE = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"fastbell", b"1"),  # tells a phone that a 204 is ours, not a proxy's
)

_JSON = (*_EVERYWHERE, (b"content-security-policy", _NOTHING))

_PAGES = (*_EVERYWHERE, (b"content-security-policy", _DOCUMENTATION))

_PAGES_AT = frozenset({"/docs"})

_NOT_STORED = (b"cache-control", b"no-store")

_ENCRYPTED = (b"strict-transport-security", b"max-age=31536000")


FOR_ERRORS = {name.decode(): value.decode() for name, value in (*_JSON, _NOT_STORED)}


class SecurityHeaders:
    """Adds the headers that an answer does not have."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"] = list(message.get("headers", ()))
                own = {name.lower() for name, _ in headers}
                headers += [header for header in _headers(scope) if header[0] not in own]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    path: str = scope["path"]
    found = list(_PAGES if path in _PAGES_AT else _JSON)
    if path.startswith("/v1/"):
        found.append(_NOT_STORED)
    if scope["scheme"] == "https":  # as a trusted proxy says
        found.append(_ENCRYPTED)
    return found


_POLICY = "default-src 'none'; style-src 'self'; {also}form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class PageHeaders:
    """Adds the headers of pages that an answer does not have. `also`: more sources that a page may load from."""

    def __init__(self, app: ASGIApp, also: str | None = None) -> None:
        self._app = app
        self._headers = {"Content-Security-Policy": _POLICY.format(also=f"{also}; " if also else ""), **_HEADERS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
