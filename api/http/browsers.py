"""What browsers may do: headers that restrict it for the API and for our own pages, and which forms those accept."""

import base64
import hashlib
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import ImmutableMultiDict
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]

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
_POLICY = "default-src 'none'; style-src 'self'; {also}form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
_OWN_PAGES = (*_EVERYWHERE[:3], (b"cross-origin-opener-policy", b"same-origin"), _NOT_STORED)
_ENCRYPTED = (b"strict-transport-security", b"max-age=31536000")
FOR_ERRORS = {name.decode(): value.decode() for name, value in (*_JSON, _NOT_STORED)}
_FORM = "application/x-www-form-urlencoded"
UNKNOWN_FORM = "This is not a form of these pages."
_OTHER_SITE = "This form was sent from another site."
Form = ImmutableMultiDict[str, str]


class SecurityHeaders:
    """Adds the headers that an answer does not have; by default those of the API."""

    def __init__(self, app: ASGIApp, headers: Callable[[Scope], Headers] | None = None) -> None:
        self._app = app
        self._headers = headers or _of_the_api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"] = list(message.get("headers", ()))
                own = {name.lower() for name, _ in headers}
                headers += [header for header in self._headers(scope) if header[0] not in own]
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def content_digest(content: str) -> str:
    """Give the source by which a policy allows just this inline style or script, without quotes."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def page_headers(app: ASGIApp, also: str | None = None) -> SecurityHeaders:
    """Add the headers of our own pages. `also`: more sources that a page may load from."""
    policy = _POLICY.format(also=f"{also}; " if also else "")
    headers = [(b"content-security-policy", policy.encode()), *_OWN_PAGES]
    return SecurityHeaders(app, lambda _: headers)


def _of_the_api(scope: Scope) -> Headers:
    path: str = scope["path"]
    headers = list(_PAGES if path in _PAGES_AT else _JSON)
    if path.startswith("/v1/"):
        headers.append(_NOT_STORED)
    if scope["scheme"] == "https":  # as a trusted proxy says
        headers.append(_ENCRYPTED)
    return headers


class FormRefused(Exception):
    """The form does not come from our pages, or belongs to another session."""


async def read_form(request: Request) -> Form:
    """Read a form. `get` gives the last field of a name. Raises FormRefused for other media types."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in {"", _FORM}:
        raise FormRefused(UNKNOWN_FORM)
    async with request.form() as form:
        return ImmutableMultiDict([(name, str(value)) for name, value in form.multi_items()])


def check_origin(request: Request, also: Collection[str] = ()) -> None:
    """Raise FormRefused for a form on another site's page, by `Sec-Fetch-Site` or else by `Origin`.

    Under our referrer policy the origin of our own forms is `null`, so `Sec-Fetch-Site` comes first. `also`: origins
    besides our own that are accepted without it.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_ours = site == "same-origin"
    else:
        is_ours = origin is None or origin in also or _host(origin) == request.headers.get("host", "")
    if not is_ours:
        raise FormRefused(_OTHER_SITE)


def _host(origin: str) -> str | None:
    """Give host and port of an origin; None if it is not an address."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
