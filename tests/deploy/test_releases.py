"""Each place that says the version says the same, and the changelog names each release's commit."""

import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import cli
from db.migrate import revisions
from domain.naming import VERSION
from tests.deploy.compose import COMPOSE_FILE
from tests.deploy.dockerfile import last_stage
from tests.releases import Release, releases
from tests.stack import ROOT, Stack
from tests.upgrade.last_release import LOCK, NotThere, python_of, take_out

KUSTOMIZATION = ROOT / "deploy" / "kubernetes" / "kustomization.yaml"


def test_every_place_says_the_same_version() -> None:
    [label] = [rest for word, rest in last_stage() if word == "LABEL"]
    compose, cluster = yaml.safe_load(COMPOSE_FILE.read_text()), yaml.safe_load(KUSTOMIZATION.read_text())
    [image] = cluster["images"]

    assert re.findall(r'image\.version="(.+?)"', label) == [VERSION]
    assert compose["x-fastbell"]["image"] == f"fastbell:{VERSION}"
    assert image["newTag"] == VERSION
    assert {"pairs": {"app.kubernetes.io/version": VERSION}, "includeTemplates": True} in cluster["labels"]
    assert f"fastbell:{VERSION} ." in (ROOT / "docs" / "kubernetes.md").read_text()
    assert f"Version {VERSION}, migration {revisions()[0]}." in (ROOT / "CHANGELOG.md").read_text()


def test_the_changelog_names_each_release_the_latest_first() -> None:
    listed = releases()
    headings = re.findall(r"^## (\d.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert [each.version for each in listed] == headings == sorted(headings, key=_order, reverse=True)
    assert {each.migration for each in listed} <= set(revisions())
    assert _order(VERSION) > _order(listed[0].version)


def test_the_command_tells_version_and_migration(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0

    assert capsys.readouterr().out == f"fastbell {VERSION} (migration {revisions()[0]})\n"


def _order(version: str) -> list[int]:
    return [int(number) for number in version.split(".")[:3]]


async def test_the_api_tells_its_version(stack: Stack) -> None:
    alive, ready = await stack.http.get("/livez"), await stack.http.get("/readyz")
    document, metrics = await stack.http.get("/openapi.json"), await stack.http.get("/metrics")

    assert alive.headers["Fastbell-Version"] == ready.headers["Fastbell-Version"] == VERSION
    assert document.json()["info"]["version"] == VERSION
    assert f'fastbell_build_info{{version="{VERSION}"}} 1.0' in metrics.text


def test_the_image_knows_its_version(image: Path) -> None:
    assert (image / "pyproject.toml").read_text() == (ROOT / "pyproject.toml").read_text()


def test_without_history_the_rehearsal_of_an_upgrade_says_so_in_one_sentence(tmp_path: Path) -> None:
    absent = Release("0.1.0", "0" * 40, "0017")

    with pytest.raises(NotThere, match=r"^Commit 0{40} of release 0\.1\.0 is not in [^.]*: run `git [a-z -]*`\.$"):
        take_out(absent, tmp_path)


def test_a_release_with_the_packages_of_this_one_runs_with_this_python(tmp_path: Path) -> None:
    pins = [f"alembic=={version('alembic')} \\", "    --hash=sha256:00", "no-such==1 ; sys_platform == 'win32' \\"]
    (tmp_path / LOCK).write_text("\n".join(pins))

    assert python_of(releases()[0], tmp_path) == Path(sys.executable)
