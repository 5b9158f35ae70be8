"""The image holds what runs, and nothing that must not leave the checkout."""

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from tests.deploy.dockerfile import copies, instructions, is_ignored, last_stage
from tests.stack import ROOT


def test_every_copied_path_exists_and_enters_the_build() -> None:
    for source, _ in copies(instructions()):
        assert (ROOT / source).exists(), source
        assert not is_ignored(PurePosixPath(source)), source


def test_packages_are_installed_from_the_lock_by_hash() -> None:
    [install] = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]

    assert "--require-hashes" in install
    assert install.endswith("-r requirements.lock")


def test_the_image_runs_as_nobody_special() -> None:
    users = [rest for word, rest in last_stage() if word == "USER"]

    assert users == ["10001:10001"]


def test_base_images_have_a_fixed_tag() -> None:
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]

    assert set(bases) == {"python:3.11-slim-bookworm"}


@pytest.mark.parametrize("path", [".env", ".git/config", ".venv/pyvenv.cfg", ".run/apns.p8", "secrets/apns.p8"])
def test_secrets_and_state_stay_out_of_the_build(path: str) -> None:
    assert is_ignored(PurePosixPath(path))


def test_the_image_alone_can_import_its_entry_points(image: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(image)!r}); import api.__main__, worker, cli; print(worker.__file__)"

    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=image, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(image))


def test_the_image_has_the_consoles_pages(image: Path) -> None:
    pages = {path.name for path in (ROOT / "api/console/templates").iterdir()}

    assert {path.name for path in (image / "api/console/templates").iterdir()} == pages
    assert (image / "api/console/style.css").is_file()
