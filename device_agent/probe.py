"""Asks a runtime whether it works, in a child of its own Python: ``python -m device_agent.probe NAME``."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping

from device_agent import runtimes
from device_agent.protocol import RuntimeInfo

_PROBE_TIMEOUT_S = 60.0


class Probes:
    """What the runtimes of this agent are, asked once, when first needed."""

    def __init__(self, pythons: Mapping[str, str]) -> None:
        self._pythons = pythons
        self._lock = threading.Lock()
        self._infos: dict[str, RuntimeInfo] = {}

    def all(self) -> tuple[RuntimeInfo, ...]:
        """Return every known runtime."""
        return tuple(self.info(name) for name in runtimes.known())

    def info(self, name: str) -> RuntimeInfo:
        """Return the version of ``name``, or why it cannot be used.

        Raises:
            UnknownRuntime: if there is no such runtime.
        """
        runtimes.check_known(name)
        with self._lock:
            if name not in self._infos:
                self._infos[name] = _ask(name, self.python(name))
            return self._infos[name]

    def python(self, name: str) -> str:
        """Return the Python that runs ``name``."""
        return runtimes.python_of(name, self._pythons)


def _ask(name: str, python: str) -> RuntimeInfo:
    try:
        answer = subprocess.run(
            [python, "-m", "device_agent.probe", name],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return RuntimeInfo(name, None, f"{python}: {error}")
    if answer.returncode == 0:
        return RuntimeInfo(name, str(json.loads(answer.stdout.splitlines()[-1])["version"]))
    lines = answer.stderr.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), f"ended with {answer.returncode}")
    return RuntimeInfo(name, None, f"{python}: {last}")


def main() -> int:
    """Print the version of the runtime that the command line names; an exception says why it does not work."""
    runtime = runtimes.find(sys.argv[1])
    runtime.probe()
    print(json.dumps({"version": runtime.version()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
