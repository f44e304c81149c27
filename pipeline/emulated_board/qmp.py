"""QEMU's machine protocol, as far as a board needs it: one command, one answer (QEMU, docs/interop/qmp-spec)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import EmulatorError


class Qmp:
    """A conversation with one QEMU."""

    def __init__(self, connection: socket.socket, answers: TextIO) -> None:
        self._connection = connection
        self._answers = answers

    def execute(self, command: str, **arguments: Any) -> Any:
        """Return what QEMU answers to ``command``.

        Raises:
            EmulatorError: if it refuses, or is gone.
        """
        try:
            self._connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            while "return" not in (answer := self._read()):
                if "error" in answer:
                    raise EmulatorError(f"QEMU refuses {command}: {answer['error']['desc']}")
        except OSError as error:
            raise EmulatorError(f"QEMU has ended: {error.strerror}") from error
        return answer["return"]

    def monitor(self, line: str) -> None:
        """Have a line of QEMU's monitor carried out, one that answers nothing when all is well.

        Raises:
            EmulatorError: with what it answers.
        """
        said = self.execute("human-monitor-command", **{"command-line": line})
        if said.strip():
            raise EmulatorError(f'QEMU answers "{line}" with: {said.strip()}')

    def _read(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise EmulatorError("QEMU has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def connected(path: Path) -> Iterator[Qmp]:
    """Speak with the QEMU whose socket is at ``path``.

    Raises:
        EmulatorError: if there is none.
    """
    # A socket's path may have 107 bytes; that of its folder as a descriptor always fits.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(f"/proc/self/fd/{folder}/{path.name}")
            except OSError as error:
                raise EmulatorError(f"no QEMU answers at {path}: {error.strerror}") from error
            with connection.makefile("r", encoding="utf-8") as answers:
                answers.readline()  # its greeting
                qmp = Qmp(connection, answers)
                qmp.execute("qmp_capabilities")
                yield qmp
    finally:
        os.close(folder)
