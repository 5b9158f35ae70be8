"""People who leave, as tests see them: asked for, gone on with, and looked for everywhere."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
from sqlalchemy import text

from dispatch.eraser import Eraser
from dispatch.relay import Relay
from tests.stack import Stack, eventually


def path_of(user_id: str, rest: str = "") -> str:
    """The path of somebody: a slash belongs to the id."""
    return f"/v1/users/{quote(user_id, safe='')}{rest}"


async def ask(stack: Stack, user_id: str) -> httpx.Response:
    """Ask for an erasure."""
    return await stack.user("backend", "service").call("DELETE", path_of(user_id))


async def leave(stack: Stack, user_id: str) -> UUID:
    """Ask for an erasure that is accepted; gives its id."""
    answer = await ask(stack, user_id)
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "running"
    return UUID(answer.json()["id"])


async def state_of(stack: Stack, erasure_id: UUID) -> str:
    """Ask how far it is."""
    answer = await stack.user("backend", "service").call("GET", f"/v1/erasures/{erasure_id}")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["state"])


async def done(stack: Stack, erasure_id: UUID, *, within: float = 30.0) -> None:
    """Go on with erasures until this one is done."""
    eraser = Eraser(stack.sessions, stack.temporal)

    async def is_done() -> bool:
        await eraser.work()
        return await state_of(stack, erasure_id) == "done"

    await eventually(is_done, within=within)


async def all_done(stack: Stack) -> None:
    """Go on until no erasure runs, as a worker does: the outbox has to be settled too."""
    eraser, relay = Eraser(stack.sessions, stack.temporal), Relay(stack.sessions, stack.temporal, 0.0)

    async def none_runs() -> bool:
        await relay.sweep()
        await eraser.work()
        return not await stack.rows("SELECT 1 FROM erasures WHERE done_at IS NULL")

    await eventually(none_runs, within=30.0)


async def erased(stack: Stack, user_id: str) -> UUID:
    """Erase somebody; gives the erasure's id."""
    erasure_id = await leave(stack, user_id)
    await done(stack, erasure_id)
    return erasure_id


async def holding(stack: Stack, values: Iterable[str]) -> set[tuple[str, str]]:
    """Say which tables hold which of these values, in a column of any type: (table, value)."""
    listed = (
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
    )
    held: set[tuple[str, str]] = set()
    wanted = list(values)
    for [table] in await stack.rows(listed):
        found = (
            f'SELECT DISTINCT v FROM "{table}" AS t JOIN unnest(CAST(:forms AS text[])) AS v ON strpos(t::text, v) > 0'
        )
        forms = {form: value for value in wanted for form in (value, value.encode().hex())}  # hex: bytes
        held |= {(table, forms[row.v]) for row in await stack.rows(found, forms=list(forms))}
    return held


async def workflows_about(stack: Stack, *ids: UUID) -> list[str]:
    """List the workflows whose ids or attributes name one of these, closed ones too."""
    among = ", ".join(f"'{each}'" for each in ids)
    return [run.id async for run in stack.temporal.list_workflows(f"SessionId IN ({among}) OR MessageId IN ({among})")]


async def change(stack: Stack, statement: str, **values: Any) -> None:
    """Change rows."""
    async with stack.sessions.begin() as db:
        await db.execute(text(statement), values)
