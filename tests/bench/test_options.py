"""Every option that a benchmark reads is one that it takes: argparse would tell only when it is read, minutes later.

Likewise the ports that it gives its parts: they are free.
"""

import re
import socket
from pathlib import Path

import pytest

from bench.stack import free_ports

ROOT = Path(__file__).parent.parent.parent
BENCHMARKS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "bench").rglob("*.py")
    if "ArgumentParser(" in path.read_text() and path.name != "model.py"
)


@pytest.mark.parametrize("path", BENCHMARKS)
def test_each_option_that_is_read_is_taken(path: str) -> None:
    text = (ROOT / path).read_text()
    taken = {name.replace("-", "_") for name in re.findall(r'"--([\w-]+)"', text)}
    taken |= set(re.findall(r'dest="(\w+)"', text))

    assert set(re.findall(r"\boptions\.(\w+)", text)) <= taken


def test_each_port_is_free_when_it_is_given() -> None:
    for port in free_ports(2):
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))
