"""The front page leads to what exists, and runs nothing."""

import base64
import hashlib
import re

import httpx
import pytest

from api.operations import front_page
from settings.environment import ServiceSettings
from tests.stack import Stack

LINK = re.compile(r'<a href="([^"]+)">')
PHONES = "http://127.0.0.1:8900"


@pytest.fixture
async def page(stack: Stack) -> httpx.Response:
    """The page of a process that names no phones."""
    return await stack.http.get("/")


async def test_every_page_that_it_leads_to_exists(stack: Stack, page: httpx.Response) -> None:
    found = {link: (await stack.http.get(link, follow_redirects=True)).status_code for link in LINK.findall(page.text)}

    assert page.status_code == 200
    assert found == {"/docs": 200, "/console/": 200, "/readyz": 200}
    assert (await stack.http.head("/")).status_code == 200
    assert (await stack.http.post("/")).status_code == 405


@pytest.mark.parametrize(("url", "links"), [(None, 0), (PHONES, 1)])
def test_phones_are_linked_only_where_there_are_any(url: str | None, links: int) -> None:
    environ = {"DATABASE_URL": "postgresql://db/x", "TEMPORAL_UI_URL": "http://temporal.internal"}
    settings = ServiceSettings.read(environ | ({"PHONES_URL": url} if url else {}))

    shown = bytes(front_page(settings).body).decode()

    assert LINK.findall(shown).count(PHONES) == links
    assert "temporal.internal" not in shown


def test_nothing_but_its_own_style_is_loaded_or_run(page: httpx.Response) -> None:
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()

    assert page.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; form-action 'none'; frame-ancestors 'none';"
        " base-uri 'none'"
    )
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "<script" not in page.text
