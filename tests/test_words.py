"""Words: one public class per name, no name that the glossary replaced, no document that names a missing file."""

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
_LISTED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
TRACKED = [path for path in _LISTED if (ROOT / path).is_file()]
NOT_PRODUCT = ("tests/", "bench/", "clients/", "db/migrations/")

# old name -> today's; only names that have no second, plain meaning
REPLACED_CLASSES = {
    "Brake": "TokenErrorCutoff",
    "Passage": "Permit",
    "Ticket": "BreakerPermit",
    "Gate": "RouteLimiter",
    "Gates": "RouteLimiters",
    "Turns": "AdmissionQueue",
    "Line": "WaitQueue",
    "Turn": "CollapseGroupTurn",
    "Bookings": "Reservations",
    "Pace": "TokenBucket",
    "Slot": "CallLease",
    "Place": "StreamLease",
    "Places": "ConnectionCapacity",
    "Pulse": "KeepAlive or HeartbeatTimings",
    "Rush": "DueLoad",
    "Means": "SendDependencies, DeliveryChannel or ConsoleServices",
    "Go": "Proceed",
    "Busy": "InFlight",
    "Waiting": "Deferred",
    "Settled": "Final",
    "Doubtful": "SuspectToken",
    "Foreign": "MismatchedToken",
    "Fate": "Delivery, WorkflowState or Arrival",
    "Apps": "SenderRegistry",
    "Heed": "PresencePolicy",
    "Earnest": "RedriveMode",
    "LettingGo": "Purging",
    "Leftover": "RetentionTarget",
    "TestPush": "DiagnosticPush",
    "House": "Stack",
    "Crew": "WorkerHarness",
    "Visitor": "Operator",
    "Door": "session",
}
REPLACED_FUNCTIONS = {
    "braked": "cut_off",
    "bury_refused": "mark_dead",
    "judging": "precheck",
    "judge_all": "precheck",
    "screen_lines": "collapse_groups",
    "senders": "owning_workflow_ids",
    "let_go": "purge",
    "told": "on_sent",
    "asides": "background_tasks",
    "telling": "metrics_server",
    "asked": "query",
    "found": "rows",
    "upto": "until",
    "house": "stack",
    "crew": "worker_harness",
    "unmanned": "without_worker",
    "door": "session",
    "visitor": "operator",
    "keep": "set_cookie",
    "test_push": "diagnostic_push",
    "ways": "routes",
    "make_means": "make_send_dependencies",
}
REPLACED_LOCALS = {"told", "said", "asked", "telling", "asides", "wishes", "wish", "owed", "spared", "house", "crew"}
KEPT: Mapping[tuple[str, str], str] = {}  # (path, name) -> why the old name stays
WRITTEN_BY_PEOPLE = {"apps.toml", "mine.toml"}  # files by the names that examples give them


class Definition(NamedTuple):
    """A class, a function or a method whose name is public."""

    path: str
    name: str
    is_class: bool


@pytest.fixture(scope="module")
def definitions() -> list[Definition]:
    """All of the tree."""
    files = [path for path in TRACKED if path.endswith(".py")]
    return [each for path in files for each in _defined(path, (ROOT / path).read_text())]


def test_no_public_class_name_occurs_twice_in_the_product(definitions: list[Definition]) -> None:
    assert _twice(definitions) == {}


def test_no_class_or_function_has_a_replaced_name(definitions: list[Definition]) -> None:
    assert _replaced(definitions) == {}


def test_no_variable_has_a_replaced_name() -> None:
    files = [path for path in TRACKED if path.endswith(".py") and not path.startswith(NOT_PRODUCT)]
    assert [each for path in files for each in _replaced_locals(path, (ROOT / path).read_text())] == []
    assert _replaced_locals("any.py", "def f(told):\n    owed = [spared for spared in told]") == [
        *("any.py:1: told", "any.py:2: owed", "any.py:2: spared"),
    ]


def test_every_kept_name_exists(definitions: list[Definition]) -> None:
    assert set(KEPT) <= {(each.path, each.name) for each in definitions}


@pytest.mark.parametrize(
    ("code", "places"),
    [
        ("class DueLoad: ...", {"DueLoad": ["fleet/due_load.py", "push/other.py"]}),
        ("class _DueLoad: ...", {}),
        ("def DueLoad(): ...", {}),
    ],
)
def test_a_class_name_that_occurs_twice_is_noticed(
    definitions: list[Definition], code: str, places: dict[str, list[str]]
) -> None:
    assert _twice([*definitions, *_defined("push/other.py", code)]) == places


@pytest.mark.parametrize("name", [*REPLACED_CLASSES, *REPLACED_FUNCTIONS])
def test_a_replaced_name_is_noticed(name: str) -> None:
    code = f"class {name}: ..." if name in REPLACED_CLASSES else f"class Any:\n    async def {name}(self): ..."

    assert set(_replaced(_defined("push/other.py", code))) == {f"push/other.py: {name}"}


def test_documents_name_only_files_that_exist() -> None:
    pages = [path for path in TRACKED if path.endswith(".md") and not path.startswith("clients/")]

    assert [
        each for page in pages if page != "CHANGELOG.md" for each in _missing(page, (ROOT / page).read_text())
    ] == []


@pytest.mark.parametrize(
    "named", ["push/http2_pool.py", "activities/recording/", "tests/console/visit.py", "make_run.md", "push/gate*.py"]
)
def test_a_missing_file_is_noticed(named: str) -> None:
    assert _missing("docs/any.md", f"one\nRead `{named}` first.") == [f"docs/any.md:2: {named}"]


def test_the_glossarys_code_names_are_in_the_code() -> None:
    code = "\n".join((ROOT / path).read_text() for path in TRACKED if path.endswith(".py") and path[:6] != "tests/")
    named = re.findall(r"`([A-Z][a-z]+[A-Z]\w+|[A-Z]+_[A-Z_]+)`", (ROOT / "docs" / "glossary.md").read_text())

    assert len(named) > 5
    assert {name for name in named if not re.search(rf"\b{name}\b", code)} == set()


def test_the_architecture_page_has_a_row_for_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.split("/")[0] for path in TRACKED if path.endswith("/__init__.py")}

    assert {room for room in rooms if f"`{room}/`" not in page} == set()


def _defined(path: str, code: str) -> Iterator[Definition]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
            yield Definition(path, node.name, isinstance(node, ast.ClassDef))


def _twice(definitions: Iterable[Definition]) -> dict[str, list[str]]:
    """Give the class names of the product that are defined more than once, with their files."""
    places: dict[str, list[str]] = {}
    for each in definitions:
        if each.is_class and not each.path.startswith(NOT_PRODUCT):
            places.setdefault(each.name, []).append(each.path)
    return {name: sorted(paths) for name, paths in places.items() if len(paths) > 1}


def _replaced(definitions: Iterable[Definition]) -> dict[str, str]:
    """Give what is defined under a replaced name, with the name to use."""
    return {
        f"{each.path}: {each.name}": today[each.name]
        for each in definitions
        if each.name in (today := REPLACED_CLASSES if each.is_class else REPLACED_FUNCTIONS)
        if (each.path, each.name) not in KEPT
    }


def _replaced_locals(path: str, code: str) -> list[str]:
    named = [
        (node.lineno, node.arg if isinstance(node, ast.arg) else node.id)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    ]
    return [f"{path}:{line}: {name}" for line, name in named if name.strip("_") in REPLACED_LOCALS]


def _missing(page: str, text: str) -> list[str]:
    """Find what stands in backticks like a path of the tree and is none, seen from the root and from the page."""
    paths = {*TRACKED, *(str(parent) for path in TRACKED for parent in Path(path).parents)}
    paths |= {Path(path).name for path in TRACKED}  # a file by its name alone, where the page says in which room
    rooms = {path.split("/")[0] for path in TRACKED}
    missing = []
    for number, line in enumerate(text.splitlines(), 1):
        for named in re.findall(r"`([\w./*-]+)`", line):
            is_path = "/" in named and named.split("/")[0] in rooms
            is_file = re.search(r"\.(py|md|toml|yml|html|css|json|lock)$", named) and named not in WRITTEN_BY_PEOPLE
            if (is_path or is_file) and not {named.rstrip("/"), str(Path(page).parent / named)} & paths:
                missing.append(f"{page}:{number}: {named}")
    return missing
