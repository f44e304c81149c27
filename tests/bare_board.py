"""A board with SSH, a home and a Python 3, and nothing else: a real sshd whose sessions see no more than that."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

from processes import processes_with
from ssh_server import SshServer

from pipeline.devices.inventory import Device

# What a POSIX system has, and a Debian with nothing chosen.
PROGRAMS = ("sh", "mkdir", "uname", "id", "sed", "tr", "readlink", "dirname", "cat")
# The very Python: a virtual environment's own would bring its packages along.
PYTHON = Path(sys._base_executable).resolve()


class BareBoard:
    """One board; ``home`` is its user's, ``agent_home`` where its agent would keep its files."""

    def __init__(self, folder: Path, host_key: Path, user_key: Path) -> None:
        self.home = folder / "board-home"
        self.home.mkdir(parents=True)
        self.programs = folder / "bin"
        self.programs.mkdir()
        for name in PROGRAMS:
            found = shutil.which(name)
            assert found, name
            (self.programs / name).symlink_to(found)
        (self.programs / "python3").symlink_to(PYTHON)
        self.server = SshServer(folder / "sshd", [host_key], user_key, HOME=str(self.home), PATH=str(self.programs))
        self.server.start()

    @property
    def root(self) -> Path:
        return self.home / ".local" / "share" / "edgepress"

    @property
    def agent_home(self) -> Path:
        return self.home / ".local" / "share" / "edgepress-agent"

    @property
    def files(self) -> list[str]:
        """Everything below the home."""
        return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*"))

    def device(self, name: str = "bare", file: Path | None = None) -> Device:
        """Return it as a device that nobody has provisioned."""
        server = self.server
        return Device(
            name, "ssh", host=server.host, port=server.port, user=server.user, identity_file=server.user_key, file=file
        )

    def yaml(self) -> str:
        """Return what its file says."""
        server = self.server
        return (
            f"# a board of the tests\nhost: {server.host}\nport: {server.port}\nuser: {server.user}\n"
            f"identity_file: {server.user_key}\n"
        )

    def stop(self) -> None:
        """End the server and whatever runs from the home."""
        self.server.stop()
        for process in processes_with(str(self.home)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
