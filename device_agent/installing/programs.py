"""Programs of the board's own that the installer runs: fixed words, no shell, a time limit."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from device_agent.errors import AgentError

_PATIENCE_S = 120.0
# An SSH session of an ordinary user has no sbin in its PATH.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def is_there(program: str) -> bool:
    """Say whether the board has ``program``."""
    return shutil.which(program, path=_path()) is not None


def succeeds(*words: str, environment: Mapping[str, str] | None = None) -> bool:
    """Run a command and say whether it succeeded; a program that is missing has not."""
    return problem_of(*words, environment=environment) is None


def run(*words: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a command.

    Raises:
        AgentError: if it fails, with what it said.
    """
    problem = problem_of(*words, environment=environment)
    if problem is not None:
        raise AgentError(f"{' '.join(words)}: {problem}")


def problem_of(*words: str, environment: Mapping[str, str] | None = None) -> str | None:
    """Run a command and return why it failed; None when it succeeded."""
    program = shutil.which(words[0], path=_path())
    if program is None:
        return f"there is no {words[0]} here"
    try:
        done = subprocess.run(
            [program, *words[1:]],
            cwd="/",
            env={**os.environ, "PATH": _path(), "LC_ALL": "C", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = done.stdout.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"ended with {done.returncode}")


def _path() -> str:
    return f"{os.environ.get('PATH', '/usr/local/bin:/usr/bin:/bin')}:{_SBIN}"
