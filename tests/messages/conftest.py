"""People for this folder."""

import pytest

from tests.stack import House, User


@pytest.fixture
def alice(house: House) -> User:
    """Somebody who writes."""
    return house.user()


@pytest.fixture
def bob(house: House) -> User:
    """Somebody who reads."""
    return house.user()
