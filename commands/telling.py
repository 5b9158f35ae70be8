"""How commands tell what they found: a table to read, or JSON to work with."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import TypeAdapter


def say_json(found: object) -> None:
    """Print as JSON, in the API's words."""
    print(TypeAdapter(type(found)).dump_json(found, indent=2).decode())


def say_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns that line up."""
    lines = [list(titles), *([cell(each) for each in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def cell(value: object) -> str:
    """Write one value; whatever a provider or a person made up cannot steer the terminal."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    return "".join(each if each.isprintable() else "?" for each in str(value))
