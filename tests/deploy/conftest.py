"""What the image holds, laid out once."""

from pathlib import Path

import pytest

from tests.deploy.dockerfile import lay_out


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the image gets from the checkout, and nothing else."""
    directory = tmp_path_factory.mktemp("image")
    lay_out(directory)
    return directory
