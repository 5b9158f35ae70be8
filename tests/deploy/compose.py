"""Reads the compose file as compose does: interpolation, then services as commands with an environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.stack import ROOT

COMPOSE_FILE = ROOT / "docker-compose.yml"
_INNERMOST = re.compile(r"\$\{([A-Z0-9_]+)(?::([-+?])([^${}]*))?\}")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Command:
    """What a service runs, with its paths as they are on this machine."""

    argv: list[str]
    environment: dict[str, str]

    def with_settings(self, **settings: str) -> "Command":
        """Replace settings that it has."""
        assert settings.keys() <= self.environment.keys(), "compose does not pass that setting"
        return Command(self.argv, {**self.environment, **settings})


def variables(text: str) -> set[str]:
    """List the variables that are interpolated, those in the defaults of others too."""
    return set(re.findall(r"\$\{([A-Z0-9_]+)", text))


def project(text: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Read a compose file with what `.env` holds; KeyError names a required variable that is not set."""
    read: dict[str, Any] = _interpolated(yaml.safe_load(text), settings)
    return read


def service_command(read: dict[str, Any], name: str) -> Command:
    """Give what a service runs."""
    service = read["services"][name]
    argv = [*service.get("entrypoint", []), *service.get("command", [])]
    return _on_this_machine(read, service, argv)


def health_command(read: dict[str, Any], name: str) -> Command:
    """Give how a service is asked for its health."""
    service = read["services"][name]
    kind, *argv = service["healthcheck"]["test"]
    assert kind == "CMD"
    return _on_this_machine(read, service, argv)


def seconds(duration: str) -> float:
    """Read a duration such as `1m30s`."""
    parts = re.findall(r"(\d+)(ms|s|m|h)", duration)
    assert "".join(number + unit for number, unit in parts) == duration
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def _interpolated(node: Any, settings: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _interpolated(value, settings) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolated(value, settings) for value in node]
    while isinstance(node, str) and _INNERMOST.search(node):
        node = _INNERMOST.sub(lambda match: _value(match, settings), node)
    return node


def _value(match: re.Match[str], settings: Mapping[str, str]) -> str:
    name, operator, word = match.groups()
    value = settings.get(name, "")
    if operator == "+":
        return word if value else ""
    if not value and operator == "?":
        raise KeyError(f"{name}: {word}")
    return value or (word if operator == "-" else "")


def _on_this_machine(read: dict[str, Any], service: dict[str, Any], argv: list[str]) -> Command:
    places = {f"/run/secrets/{name}": read["secrets"][name]["file"] for name in service.get("secrets", [])}
    for volume in service.get("volumes", []):
        source, target, *_ = volume.split(":")
        if source.startswith("."):
            places[target] = source

    def here(value: str) -> str:
        for inside, outside in places.items():
            if value == inside or value.startswith(f"{inside}/"):
                return str(ROOT / outside) + value.removeprefix(inside)
        return value

    environment = {name: here(str(value)) for name, value in service.get("environment", {}).items()}
    return Command([here(word) for word in argv], environment)
