"""People for this folder."""

import pytest

from tests.stack import House, User


@pytest.fixture
def carol(house: House) -> User:
    """Somebody of the support team."""
    return house.user(None, "support")


@pytest.fixture
def alice(house: House) -> User:
    """Somebody nobody has seen before."""
    return house.user()


@pytest.fixture
def bob(house: House) -> User:
    """Somebody else."""
    return house.user()
