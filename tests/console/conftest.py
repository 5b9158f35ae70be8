"""An operator who is signed in."""

import pytest

from tests.console.visits import Visit, visit
from tests.stack import Stack


@pytest.fixture
async def carol(stack: Stack) -> Visit:
    """Somebody of the support team, signed in to the console."""
    return await visit(stack)
