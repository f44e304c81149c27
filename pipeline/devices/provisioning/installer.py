"""The installer: what of the agent puts releases on a board, as one file, and the conversation with it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

from device_agent.layout import SYSTEM_HOME, SYSTEM_ROOT, USER_ROOT
from device_agent.protocol import ProtocolError, check_sha256, from_json
from pipeline.devices.agent_stream import printable
from pipeline.devices.provisioning.bundle import File
from pipeline.devices.provisioning.probe import Probe
from pipeline.devices.ssh import SshTransport
from pipeline.devices.ssh_command import Patience
from pipeline.errors import ProvisioningFailed

# Silent for longer than the self-test of a runtime may take on the board; there may be two of them.
PATIENCE = Patience(silence_s=900.0, total_s=3600.0)

_MAIN = b"import sys\n\nfrom device_agent.installing.cli import main\n\nsys.exit(main())\n"
_NO_TIME = (1980, 1, 1, 0, 0, 0)

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where on a board an agent is, or is to be; ``home`` is the folder of its jobs and files.

    ``needs_sudo``: whoever logs in may install it through sudo only.
    """

    is_system: bool
    root: str
    home: str
    incoming: str
    needs_sudo: bool = False

    @property
    def agent(self) -> str:
        """The command of its agent."""
        return f"{self.root}/current/bin/edgepress-agent"


def place_on(probe: Probe, is_system: bool, home: str | None) -> Place:
    """Return where the agent goes: below the user's home, its data in ``home``; or to fixed places of the system's."""
    incoming = f"{probe.home}/{USER_ROOT}/incoming"
    if is_system:
        return Place(True, SYSTEM_ROOT, SYSTEM_HOME, incoming, probe.sudo != "root")
    # As the board writes it down: without "//" and the like.
    home = str(PurePosixPath(home or f"{probe.home}/.local/share/edgepress-agent"))
    return Place(False, f"{probe.home}/{USER_ROOT}", home, incoming)


def installer_zip(agent: Sequence[File]) -> bytes:
    """Return the agent's package as a zip that Python runs; nothing in it is compressed, so that it needs no zlib."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for file in [File("__main__.py", _MAIN), *agent]:
            archive.writestr(zipfile.ZipInfo(file.name, _NO_TIME), file.content)
    return content.getvalue()


class Installer:
    """The installer on one board, run by the Python ``python`` there: one process for each command."""

    def __init__(self, transport: SshTransport, device: str, place: Place, python: str) -> None:
        self._transport = transport
        self._device = device
        self._place = place
        self._python = python

    @property
    def path(self) -> str:
        """Where its file goes on the board."""
        return f"{self._place.incoming}/installer.pyz"

    def part(self, sha256: str) -> str:
        """Return where the file with this hash goes on the board."""
        return f"{self._place.incoming}/.part-{check_sha256('part', sha256)}"

    def make_room(self) -> None:
        """Make the folder for what is sent.

        Raises:
            ProvisioningFailed: if that is not permitted.
        """
        ended = self._transport.run(("mkdir", "-p", "-m", "700", "--", self._place.incoming), b"", PATIENCE)
        if ended.exit_status:
            said = printable(ended.stderr.decode("utf-8", "replace"))
            raise ProvisioningFailed(f"{self._device}: {self._place.incoming} cannot be made: {said}")

    def ask(
        self, answer: type[T], command: str, *words: str, on_stage: Callable[[str], None] = lambda stage: None
    ) -> T:
        """Run one of ``device_agent.installing.cli``'s commands and return its result as an ``answer``.

        Raises:
            ProvisioningFailed: with what the installer says is wrong, or when it says nothing that makes sense.
        """
        last: dict[str, Any] = {}

        def heard(line: bytes) -> None:
            message = _message(line)
            last.update(message)
            if "stage" in message:
                on_stage(printable(str(message["stage"]), 40))

        ended = self._transport.run(self._words(command, words), b"", PATIENCE, heard)
        if "error" in last:
            raise ProvisioningFailed(f"{self._device}: {printable(str(last['error']), 1000)}")
        try:
            return from_json(answer, last.get("result"))
        except ProtocolError as error:
            said = printable(ended.stderr.decode("utf-8", "replace")) or str(error)
            raise ProvisioningFailed(f"{self._device}: the installer ended with {ended.exit_status}: {said}") from error

    def _words(self, command: str, words: Sequence[str]) -> tuple[str, ...]:
        # What is sent belongs to whoever logs in; all else may need more rights than that.
        as_root = ("sudo", "-n") if self._place.needs_sudo and command != "prepare" else ()
        scope = ("--system",) if self._place.is_system else ()
        places = ("--home", self._place.home, "--incoming", self._place.incoming)
        return (*as_root, self._python, "-I", "-S", "-B", self.path, command, *scope, *places, *words)


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
