"""Links to the preference page: what each kind is for, and how long links and the pages behind them are of use."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum


class LinkFor(StrEnum):
    """Where a link is opened."""

    APP = "app"  # in a browser of the app, at once: opening it uses it up
    EMAIL = "email"  # in a mail, some day: programs that look at mails open it first, so a button uses it up


LIFETIMES: Mapping[LinkFor, timedelta] = {
    LinkFor.APP: timedelta(minutes=15),
    LinkFor.EMAIL: timedelta(days=30),
}
MOST_LINKS = 10  # of each kind that one person may have; the oldest goes
MOST_SESSIONS = 10  # browsers in which one person may have the page open; the oldest goes
SESSION_LIFETIME = timedelta(hours=1)  # after the last visit
LONGEST_SESSION = timedelta(hours=12)
