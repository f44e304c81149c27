"""A real server as a device, and the command of the real agent behind it."""

from __future__ import annotations

import sys
from pathlib import Path

from ssh_server import SshServer

from pipeline.devices.inventory import Device

AGENT = Path(sys.prefix).parent / "litert" / "bin" / "edgepress-agent"
# Only the stand-in runtime is needed; asking the others for their versions takes a second.
NULL_ONLY = ("--runtime=litert=/bin/false", "--runtime=tflite_runtime=/bin/false")


def attach(home: Path) -> tuple[str, ...]:
    """Return the command that reaches the agent of ``home``."""
    return (str(AGENT), "attach", "--home", str(home), *NULL_ONLY)


def device_on(server: SshServer, **changes) -> Device:
    """Return ``server`` as the device pi4, reached by its address and the user's key."""
    values = {"host": server.host, "port": server.port, "user": server.user, "identity_file": server.user_key}
    return Device("pi4", "ssh", **{**values, **changes})
