"""Questions over several tables, answered as support and operators read them: dataclasses filled from rows."""

from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

T = TypeVar("T")


def answer_of(kind: type[T], row: object, **computed: object) -> T:
    """Fill `kind`, a dataclass, from a row and from what is computed beside it; raises ValidationError."""
    names = (each.name for each in fields(kind) if each.name not in computed)  # type: ignore[arg-type] # a dataclass
    answer: T = _adapter(cast("Any", kind)).validate_python({name: getattr(row, name) for name in names} | computed)
    return answer


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 -- any dataclass
    return TypeAdapter(kind)
