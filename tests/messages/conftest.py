"""People for this folder."""

import pytest

from tests.stack import Stack, User


@pytest.fixture
def alice(stack: Stack) -> User:
    """Somebody who writes."""
    return stack.user()


@pytest.fixture
def bob(stack: Stack) -> User:
    """Somebody who reads."""
    return stack.user()
