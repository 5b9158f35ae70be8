"""The preference page without a browser: a link is followed, forms are filled in as they stand and sent."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.stack import Stack, User

LINKS, PAGE, COOKIE = "/v1/preference-links", "/preferences/", "fastbell_preferences"
OURS = {"sec-fetch-site": "same-origin"}  # what a browser says of a form on our own page

Fields = dict[str, str | list[str]]


async def link(user: User, body: object = None) -> str:
    """Make a link; gives its path."""
    answer = await user.call("POST", LINKS, body)
    assert answer.status_code == 201, answer.text
    return str(urlsplit(answer.json()["url"]).path)


async def ask(stack: Stack, path: str, method: str = "GET", form: Any = None, **headers: str) -> httpx.Response:
    """Ask from an address of its own."""
    network = f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}"  # a /64 counts as one address
    sent = {"x-forwarded-for": f"{network}::1"} | headers
    return await stack.http.request(method, path, data=form, headers=sent)


def value(answer: httpx.Response) -> str:
    """Read the cookie's value out of an answer."""
    return answer.headers["set-cookie"].partition(";")[0].partition("=")[2]


def words(answer: httpx.Response) -> str:
    """Read what a page says, without its markup."""
    main = answer.text.partition("<main")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", main)).split())


@dataclass
class Window:
    """A browser in which somebody's page is open."""

    stack: Stack
    cookie: str  # its value
    headers: dict[str, str] = field(default_factory=dict)

    async def get(self, query: str = "", **headers: str) -> httpx.Response:
        """Look at the page."""
        return await ask(self.stack, PAGE + query, **self._headers(headers))

    async def post(self, path: str, form: Mapping[str, Any], **headers: str) -> httpx.Response:
        """Send a form."""
        return await ask(self.stack, path, "POST", form, **self._headers(OURS | headers))

    async def fields(self) -> Fields:
        """Fill the saving form in as it stands."""
        return fields_of((await self.get()).text)

    async def save(self, **changes: str | list[str] | None) -> httpx.Response:
        """Change some fields of the form as it stands and send it; None: not ticked."""
        return await self.post(PAGE, filled(await self.fields(), **changes))

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"cookie": f"{COOKIE}={self.cookie}", **self.headers, **more}


async def opened(user: User) -> Window:
    """Follow a new link of somebody's."""
    return Window(user.stack, value(await ask(user.stack, await link(user))))


def filled(form: Fields, **changes: str | list[str] | None) -> Fields:
    """Change some fields of a form; None: not ticked."""
    return {name: told for name, told in (form | changes).items() if told is not None}


def fields_of(page: str) -> Fields:
    """Read what a browser would send if the saving form were sent untouched."""
    reader = _Form()
    reader.feed(page)
    return {name: told if len(told) > 1 else told[0] for name, told in reader.found.items()}


class _Form(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self._inside = False
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        name, text = told.get("name") or "", told.get("value")
        if tag == "form":
            self._inside = told.get("id") == "saving"
        if tag == "select":
            self._select = name
        if not self._inside:
            return
        is_chosen = told.get("type") not in {"checkbox", "radio"} or "checked" in told
        if tag == "input" and name and is_chosen:
            self.found.setdefault(name, []).append("on" if text is None else text)
        if tag == "option" and ("selected" in told or self._select not in self.found):
            self.found[self._select] = [text or ""]

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
