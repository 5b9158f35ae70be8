"""Finds what is wrong with a compose file: against the specification's schema, and against our own rules."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator

from tests.deploy.compose import project, seconds, variables
from tests.stack import ROOT
from worker import GRACE

ONE_SHOTS = {"database-roles", "migrate", "temporal-schema", "temporal-setup"}
SETTINGS = {"POSTGRES_PASSWORD": "secret", "TEMPORAL_ADDRESS": "temporal:7233"}  # the least that .env must hold
_SCHEMA = json.loads((Path(__file__).parent / "compose-spec.json").read_text())


def faults(text: str) -> list[str]:
    """Say all that is wrong."""
    read = project(text, SETTINGS)
    wrong = [f"schema: {error.json_path}: {error.message}" for error in Draft7Validator(_SCHEMA).iter_errors(read)]
    if wrong:
        return wrong
    wrong += [f"{name}: not documented" for name in sorted(variables(text) - _documented())]
    for name, service in read["services"].items():
        wrong += [f"{name}: {fault}" for fault in _service_faults(read, name, service)]
    return wrong + [
        f"{name}: no file {secret['file']}"
        for name, secret in read["secrets"].items()
        if not (ROOT / secret["file"]).is_file()
    ]


def _service_faults(read: dict[str, Any], name: str, service: dict[str, Any]) -> Iterator[str]:
    if not re.fullmatch(r"[\w./-]+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})", service["image"]):
        yield f"image {service['image']} has no fixed tag"
    if "ALL" not in service["cap_drop"] or "no-new-privileges:true" not in service["security_opt"]:
        yield "may gain privileges"
    if name in ONE_SHOTS:
        if service["restart"] != "no":
            yield "a one-shot that starts again"
    elif "healthcheck" not in service or service["restart"] != "unless-stopped":
        yield "runs on without health check or restart"
    for port in service.get("ports", []):
        if not port.startswith("127.0.0.1:"):
            yield f"port {port} is open to the network"
    yield from _file_faults(read, service)
    yield from _dependency_faults(read, service)
    if name == "worker":
        yield from _worker_faults(service)


def _file_faults(read: dict[str, Any], service: dict[str, Any]) -> Iterator[str]:
    for volume in service.get("volumes", []):
        source = volume.partition(":")[0]
        if not (ROOT / source).is_dir() if source.startswith(".") else source not in read["volumes"]:
            yield f"no volume {source}"
    for secret in service.get("secrets", []):
        if secret not in read["secrets"]:
            yield f"no secret {secret}"


def _dependency_faults(read: dict[str, Any], service: dict[str, Any]) -> Iterator[str]:
    for other, needed in service.get("depends_on", {}).items():
        if other not in read["services"]:
            yield f"depends on {other}, which is no service"
            continue
        wanted = "service_completed_successfully" if other in ONE_SHOTS else "service_healthy"
        if needed["condition"] != wanted:
            yield f"waits for {other} to be {needed['condition']}"
        profiles = read["services"][other].get("profiles", [])
        if needed.get("required", True) and not set(profiles) <= set(service.get("profiles", [])):
            yield f"cannot start without {other}, which is in profile {profiles}"


def _worker_faults(service: dict[str, Any]) -> Iterator[str]:
    if timedelta(seconds=seconds(service["stop_grace_period"])) < GRACE + timedelta(seconds=10):
        yield "is killed before its sends are through"
    if "container_name" in service or "ports" in service:
        yield "cannot be scaled"


def _documented() -> set[str]:
    pages = (ROOT / "docs" / "deployment.md", ROOT / ".env.example")
    return {name for page in pages if page.is_file() for name in re.findall(r"\b[A-Z][A-Z0-9_]+\b", page.read_text())}
