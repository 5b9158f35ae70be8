"""People for this folder."""

import pytest

from tests.stack import Stack, User


@pytest.fixture
def carol(stack: Stack) -> User:
    """Somebody of the support team."""
    return stack.user(None, "support")


@pytest.fixture
def alice(stack: Stack) -> User:
    """Somebody nobody has seen before."""
    return stack.user()


@pytest.fixture
def bob(stack: Stack) -> User:
    """Somebody else."""
    return stack.user()
