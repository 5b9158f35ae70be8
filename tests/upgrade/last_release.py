"""The last release, taken out of git history: its code, and a Python with the packages that it was locked to."""

import io
import subprocess
import sys
import tarfile
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

from tests.releases import Release
from tests.servers import ROOT

LOCK = "requirements.lock"
_KEPT = ROOT / ".run" / "upgrade"


class NotThere(Exception):
    """The release cannot be had; the message is one sentence."""


def take_out(release: Release, into: Path) -> None:
    """Write the code of a release to a directory; raises NotThere."""
    if not is_in_history(release):
        raise NotThere(
            f"Commit {release.commit} of release {release.version} is not in this checkout's history: run"
            " `git fetch --unshallow`."
        )
    archive = subprocess.run(["git", "archive", release.commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(into, filter="data")


def is_in_history(release: Release) -> bool:
    """Tell whether git has the commit of a release."""
    look = ["git", "cat-file", "-e", f"{release.commit}^{{commit}}"]
    return subprocess.run(look, cwd=ROOT, capture_output=True, check=False).returncode == 0


def python_of(release: Release, code: Path) -> Path:
    """Give a Python for a release: this one where its packages are the same, else one of its own, which is kept."""
    if all(map(_is_here, _pins(code))):
        return Path(sys.executable)
    own = _KEPT / release.commit
    if not (own / "installed").exists():
        venv.create(own, with_pip=True, clear=True)
        install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input", "--require-hashes"]
        subprocess.run([own / "bin" / "python", *install, "-r", code / LOCK], check=True)
        (own / "installed").touch()
    return own / "bin" / "python"


def _pins(code: Path) -> list[Requirement]:
    lines = (code / LOCK).read_text().splitlines()
    return [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalnum()]


def _is_here(pin: Requirement) -> bool:
    if pin.marker is not None and not pin.marker.evaluate():
        return True
    try:
        return version(pin.name) in pin.specifier
    except PackageNotFoundError:
        return False
