"""The operations of the API's document, as tests read and call them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from api.http.problem_types import MEDIA_TYPE


@dataclass(frozen=True)
class Operation:
    """One operation of a document."""

    path: str
    method: str
    told: dict[str, Any]

    @property
    def id(self) -> str:
        """Give its name."""
        return str(self.told["operationId"])

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """List its parameters."""
        return list(self.told.get("parameters", []))

    @property
    def body(self) -> dict[str, Any] | None:
        """Give the schema of its body, if it takes one."""
        return self.told["requestBody"]["content"]["application/json"]["schema"] if "requestBody" in self.told else None

    @property
    def examples(self) -> Mapping[str, Any]:
        """Give its bodies by what they show."""
        content = self.told.get("requestBody", {}).get("content", {}).get("application/json", {})
        return {name: example["value"] for name, example in content.get("examples", {}).items()}

    @property
    def scopes(self) -> list[str] | None:
        """List the scopes that it needs; None where it needs no bearer token."""
        security = self.told.get("security")
        return None if security is None else [scope for each in security for of in each.values() for scope in of]

    @property
    def problems(self) -> Mapping[str, dict[str, Any]]:
        """Give the problems that it documents, by type."""
        return {
            name: example["value"]
            for response in self.told["responses"].values()
            for name, example in response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {}).items()
        }

    @property
    def statuses(self) -> set[int]:
        """List the statuses of success."""
        return {int(status) for status in self.told["responses"] if int(status) < 400}

    @property
    def address(self) -> str:
        """Give the path with the examples of its parameters, and its query."""
        return self.at({each["name"]: each["example"] for each in self.parameters if "example" in each})

    def at(self, values: Mapping[str, str]) -> str:
        """Give the path with these values, and with those of the query that are required."""
        path = self.path.format_map(values)
        query = [
            f"{e['name']}={values[e['name']]}" for e in self.parameters if e["in"] == "query" and e["name"] in values
        ]
        return "?".join([path, "&".join(query)] if query else [path])


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    """List a document's operations."""
    for path, of_path in document["paths"].items():
        for method, told in of_path.items():
            yield Operation(path, method.upper(), told)


class Shapes:
    """The schemas of a document, to compare JSON with."""

    def __init__(self, document: dict[str, Any]) -> None:
        whole = DRAFT202012.create_resource(document)
        self._registry = Registry().with_resource("urn:document", whole).crawl()

    def fit(self, schema: str | dict[str, Any] | None, instance: object) -> bool:
        """Tell whether JSON fits a schema of the document, or one that it names."""
        there = {"$ref": f"#/components/schemas/{schema}"} if isinstance(schema, str) else schema or {}
        here = json.loads(json.dumps(there).replace('"#/', '"urn:document#/'))
        return jsonschema.Draft202012Validator(here, registry=self._registry).is_valid(instance)
