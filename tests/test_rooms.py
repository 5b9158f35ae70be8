"""The rooms: contracts fail when they are broken, files at the root import what they may, files are of a size."""

import ast
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"])
OURS = {*PACKAGES, *(path.stem for path in ROOT.glob("*.py"))}

# Bounds on the product's files; a file that passes one is two ideas, or half of one.
MAX_FILES, LEAST_MEDIAN, FRAGMENT, MAX_FRAGMENTS, LONGEST = 250, 95, 60, 42, 450

ROOT_FILES = {
    "worker": {
        *("activities", "db", "dispatch", "domain", "fleet", "push", "settings", "telemetry", "workflows"),
    },
    "cli": {"commands", "domain", "settings"},
    "local": {"demo", "settings"},
}

BREAKS = {
    "domain/push.py": "import db.engine",
    "db/engine.py": "import push.sender",
    "push/fcm/sender.py": "import db.engine",
    "push/sender.py": "import aioapns",
    "push/apns/sender.py": "import firebase_admin",
    "db/batch.py": "import sending.attempts",
    "workflows/fan_out.py": "import dispatch.relay",
    "api/app.py": "import simulator",
    "simulator/phones.py": "import domain.push",
    "domain/fasts.py": "import sqlalchemy",
    "db/outbox.py": "import settings.environment",
    "telemetry/metrics.py": "import db.engine",
    "sending/retry.py": "import opentelemetry.trace",
    "operations/redrive.py": "import sending.attempts",
    "sending/attempts.py": "import fleet.heartbeat",
    "telemetry/exporting.py": "import telemetry.tracing",
    "simulator/admin.py": "import simulator.running",
    "db/models/table.py": "import db.views.timeline",
}


@pytest.mark.parametrize("name", ROOT_FILES)
def test_a_file_at_the_root_imports_just_these_rooms(name: str) -> None:
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])

    assert found & OURS == ROOT_FILES[name]


def test_every_file_at_the_root_is_listed() -> None:
    assert {path.stem for path in ROOT.glob("*.py")} == set(ROOT_FILES)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the rooms, to be broken."""
    directory = tmp_path_factory.mktemp("rooms")
    shutil.copy(ROOT / "pyproject.toml", directory)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    return directory


def test_the_rooms_keep_their_contracts(copy: Path) -> None:
    assert _broken(copy) == 0


@pytest.mark.parametrize("path", BREAKS)
def test_a_broken_contract_is_noticed(copy: Path, path: str) -> None:
    kept = (copy / path).read_text()
    (copy / path).write_text(f"{kept}\n{BREAKS[path]}\n")
    try:
        assert _broken(copy) >= 1
    finally:
        (copy / path).write_text(kept)


def _broken(directory: Path) -> int:
    """Count the broken contracts."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    out = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False).stdout
    found = re.search(r"Contracts: \d+ kept, (\d+) broken", out)
    assert found, out
    return int(found[1])


def test_files_are_few_and_of_a_size_that_one_reads() -> None:
    assert _off({path: len((ROOT / path).read_text().splitlines()) for path in _product_files()}) == []


@pytest.mark.parametrize(
    ("sizes", "off"),
    [
        ([100] * 251, ["251 files, of 250"]),
        ([94] * 101, ["a median of 94 lines, of 95"]),
        ([59] * 43 + [100] * 100, ["43 files under 60 lines, of 42"]),
        ([100, 100, 451], ["2.py has 451 lines, of 450"]),
        ([59] * 42 + [95] * 207 + [450], []),
    ],
)
def test_too_many_or_odd_files_are_noticed(sizes: list[int], off: list[str]) -> None:
    assert _off({f"{number}.py": size for number, size in enumerate(sizes)}) == off


def _product_files() -> list[str]:
    """List the Python files of the product, as git tracks them."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    others = ("tests/", "bench/", "clients/", "db/migrations/")
    return [path for path in listed.splitlines() if not path.startswith(others) and (ROOT / path).is_file()]


def _off(lines: Mapping[str, int]) -> list[str]:
    """Say which bounds on files and their lines do not hold."""
    median, fragments = statistics.median(lines.values()), sum(count < FRAGMENT for count in lines.values())
    return [
        *([f"{len(lines)} files, of {MAX_FILES}"] if len(lines) > MAX_FILES else []),
        *([f"a median of {median:g} lines, of {LEAST_MEDIAN}"] if median < LEAST_MEDIAN else []),
        *([f"{fragments} files under {FRAGMENT} lines, of {MAX_FRAGMENTS}"] if fragments > MAX_FRAGMENTS else []),
        *(f"{path} has {count} lines, of {LONGEST}" for path, count in lines.items() if count > LONGEST),
    ]


def test_what_a_test_sets_up_for_a_block_is_taken_down_though_the_block_fails() -> None:
    forgetful = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted(ROOT.joinpath("tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if any("contextmanager" in ast.unparse(decorator) for decorator in node.decorator_list)
        for line in _followed(node.body)
    ]

    assert forgetful == []  # a worker that goes on after its test failed keeps pytest's loop from closing


def _followed(body: list[ast.stmt]) -> list[int]:
    """Find a yield behind which something is done in the same block, which an error would pass over."""
    lines = []
    for place, statement in enumerate(body):
        if any(isinstance(node, ast.Yield) for node in ast.walk(statement)):
            lines += [statement.lineno] if body[place + 1 :] else []
            lines += _followed(getattr(statement, "body", []))
    return lines
