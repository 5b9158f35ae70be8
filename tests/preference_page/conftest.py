"""Languages that nobody speaks."""

from collections.abc import Iterator

import pytest

from api.preference_page.words import CATALOGUE
from tests.preference_page.pseudo import FROM_THE_RIGHT, LONG, from_the_right, long


@pytest.fixture
def _pseudo_languages() -> Iterator[None]:
    """Let the page speak them for one test."""
    added = {LONG: long(), FROM_THE_RIGHT: from_the_right()}
    CATALOGUE.update(added)
    yield
    for tag in added:
        del CATALOGUE[tag]
