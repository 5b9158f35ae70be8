"""Reads the Dockerfile and .dockerignore as a build does, as far as these two use them."""

import shutil
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from tests.stack import ROOT

DOCKERFILE = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """List instructions with their words, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined)]


def last_stage() -> list[tuple[str, str]]:
    """List the instructions that make the image itself."""
    every = instructions()
    starts = [number for number, (word, _) in enumerate(every) if word == "FROM"]
    return every[starts[-1] :]


def copies(stage: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """List what is copied from the build context: source and destination."""
    found = []
    for word, rest in stage:
        if word == "COPY" and not rest.startswith("--from="):
            *sources, destination = rest.split()
            found += [(source, destination) for source in sources]
    return found


def is_ignored(path: PurePosixPath) -> bool:
    """Tell whether .dockerignore keeps a path of the checkout out of the build: the last matching line decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and any(_matches(part, pattern) for part in (path, *path.parents)):
            ignored = not line.startswith("!")
    return ignored


def lay_out(image: Path) -> None:
    """Copy to a directory what the image gets from the checkout."""
    for source, destination in copies(last_stage()):
        origin = ROOT / source
        for file in [origin] if origin.is_file() else origin.rglob("*"):
            relative = PurePosixPath(file.relative_to(ROOT).as_posix())
            if file.is_file() and not is_ignored(relative):
                into = image / destination / (file.relative_to(origin) if origin.is_dir() else file.name)
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, into)


def _matches(path: PurePosixPath, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatchcase(path.name, pattern.removeprefix("**/"))
    parts = PurePosixPath(pattern).parts
    return len(parts) == len(path.parts) and all(map(fnmatchcase, path.parts, parts))
