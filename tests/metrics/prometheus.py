"""A Prometheus server, and what deploy/ says of alerts and dashboards, hurried so that minutes are seconds."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.busy import ANSWERED_WITHIN, soon
from tests.debian import program
from tests.servers import ROOT, free_port

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
_SHORT = "20s"
_NO_NAMES = re.compile(
    r"""\{[^}]*\} | \[[^]]*\] | \b(?:by|on|without|ignoring)\s*\([^)]*\) | \boffset\s+\w+""", flags=re.VERBOSE
)


def alerts() -> list[dict[str, Any]]:
    """Read the alerts as they are deployed."""
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for rule in group["rules"] if "alert" in rule]


def hurried(rule: dict[str, Any]) -> dict[str, Any]:
    """Let an alert look back for seconds and be raised at once."""
    return {
        **rule,
        "expr": re.sub(r"offset \w+", "offset 1m", re.sub(r"\[\w+\]", f"[{_SHORT}]", rule["expr"])),
        "for": "0s",
    }


def panels(board: Path) -> Iterator[tuple[str, str]]:
    """List the expressions of a dashboard by their panels, with the variables filled in."""
    for panel in json.loads(board.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", _SHORT).replace("$provider", ".*")


def names() -> set[str]:
    """List the metrics that alerts and dashboards name, each by itself."""
    expressions = [rule["expr"] for rule in alerts()]
    expressions += [expression for board in DASHBOARDS for _, expression in panels(board)]
    words = (re.findall(r"\b[a-zA-Z_]\w*\b(?!\s*\()", _NO_NAMES.sub(" ", each)) for each in expressions)
    return {word for found in words for word in found} - {"and", "or", "unless", "bool"}


def promtool(*command: str) -> None:
    """Let it check what is deployed."""
    done = subprocess.run(
        [program("promtool"), *command], cwd=ALERTS.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def check_rules(directory: Path, tests: list[dict[str, Any]]) -> None:
    """Test the deployed alerts, and expressions, with these series."""
    file = directory / "rules_test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "15s", "tests": tests}))
    promtool("test", "rules", str(file))


@dataclass(frozen=True)
class Prometheus:
    """One that scrapes twice a second."""

    http: httpx.AsyncClient

    async def raised(self) -> set[str]:
        """Name the alerts that are raised."""
        answer = (await self.http.get("/api/v1/alerts")).json()
        return {alert["labels"]["alertname"] for alert in answer["data"]["alerts"]}

    async def series(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression now."""
        answer = (await self.http.post("/api/v1/query", data={"query": expression})).json()
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    async def names(self) -> set[str]:
        """Name all metrics that were ever scraped."""
        answer = (await self.http.get("/api/v1/label/__name__/values")).json()
        return set(answer["data"])

    async def value(self, expression: str) -> float:
        """Evaluate an expression that gives one number."""
        [one] = await self.series(expression)
        return float(one["value"][1])


@asynccontextmanager
async def scraping(directory: Path, targets: dict[str, int]) -> AsyncIterator[Prometheus]:
    """Scrape these ports of this machine, each as the job that it is named for."""
    rules = {"groups": [{"name": "hurried", "rules": [hurried(rule) for rule in alerts()]}]}
    (directory / "alerts.yml").write_text(yaml.safe_dump(rules))
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job, port in targets.items()
        ],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program("prometheus"),
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'series'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=ANSWERED_WITHIN) as http:
            async with soon(20):
                while not await _is_ready(http):
                    assert process.returncode is None, (directory / "log").read_text()
                    await asyncio.sleep(0.1)
            yield Prometheus(http)
    finally:
        process.kill()
        await process.wait()


async def _is_ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/-/ready")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
