"""Forms of our own pages: their origin and their fields."""

from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import ImmutableMultiDict

_FORM = "application/x-www-form-urlencoded"
UNKNOWN_FORM = "This is not a form of these pages."
_OTHER_SITE = "This form was sent from another site."
Form = ImmutableMultiDict[str, str]


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
