"""Programs that some tests need from Debian; `make tools` installs them."""

import os
import shutil
from pathlib import Path

import pytest

_UNPACKED = Path(__file__).parent.parent / ".tools" / "usr" / "bin"


def program(name: str) -> str:
    """Find a program; without it the test is skipped, but fails where CI is set."""
    found = shutil.which(name, path=_UNPACKED) or shutil.which(name)
    if found is None:
        why = f"{name} is not installed; `make tools` gets it from Debian"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found
