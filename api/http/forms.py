"""Forms of our own pages: where one comes from, and what it says."""

from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import ImmutableMultiDict

_FORM = "application/x-www-form-urlencoded"


Form = ImmutableMultiDict[str, str]


class FormRefused(Exception):
    """The request does not come from a page of ours, or not from one of this visitor's."""


async def read_form(request: Request) -> Form:
    """Read a form; of fields with one name `get` gives the last. Raises Refused for what no form of ours sends."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in {"", _FORM}:
        raise FormRefused("This is no form of ours.")
    async with request.form() as form:
        return ImmutableMultiDict([(name, str(value)) for name, value in form.multi_items()])


def check_origin(request: Request, also: Collection[str] = ()) -> None:
    """Raise Refused for a form on somebody else's page, whichever of its two ways a browser has to say so.

    Under our referrer policy a browser calls the origin of our own forms `null`, so its site counts first. `also`:
    origins besides our own that will do where it does not tell its site.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_ours = site == "same-origin"
    else:
        is_ours = origin is None or origin in also or _host(origin) == request.headers.get("host", "")
    if not is_ours:
        raise FormRefused("This form was sent from another site.")


def _host(origin: str) -> str | None:
    """Give host and port of an origin; None for what is no address."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
