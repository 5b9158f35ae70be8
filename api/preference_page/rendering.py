"""The pages as HTML, in the language of whoever reads them."""

from api.preference_page.view import View

STYLE = b""
STYLE_VERSION = ""


def preference_page(view: View) -> str:
    """Render the page."""
    return f"<!doctype html><title>{view.locale}</title>"


def confirm_page(locale: str, action: str) -> str:
    """Render the page behind the link of an e-mail: a button that opens the preferences by a POST to `action`.

    There is no session yet, so no CSRF token: the code in `action` is what proves the right to post.
    """
    return f"<!doctype html><title>{locale}</title><form method=post action={action}></form>"


def gone_page(locale: str) -> str:
    """Render the page behind a link that is used, too old or none: the same for all."""
    return f"<!doctype html><title>{locale}</title>"
