"""Headers of each answer of our pages: nothing from elsewhere, nothing of it elsewhere, nothing kept."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = "default-src 'none'; style-src 'self'; {also}form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class PageHeaders:
    """Adds them; an answer that has one of its own keeps it. `also`: what else a page may load."""

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
