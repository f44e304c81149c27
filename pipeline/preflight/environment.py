"""Where on this machine a device's runtime is installed."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass
from pathlib import Path

from device_agent import runtimes


@dataclass(frozen=True)
class Environment:
    """A Python that has a runtime, and that runtime's version."""

    runtime: str
    version: str
    python: str


def is_installable(runtime: str) -> bool:
    """Whether a runtime comes in a package: one that does not is a stand-in, which runs no flatbuffers."""
    return bool(_package(runtime))


def find_environment(runtime: str) -> Environment | None:
    """Return the environment of ``runtime`` beside ours, or ours; None when neither has it. No process is started."""
    python = runtimes.python_of(runtime, {})
    version = _version(_package(runtime), python)
    return Environment(runtime, version, python) if version else None


def _package(runtime: str) -> str:
    return str(getattr(runtimes.find(runtime), "PACKAGE", ""))


def _version(package: str, python: str) -> str:
    if python == sys.executable:
        folders = sys.path
    else:
        folders = [str(folder) for folder in Path(python).parents[1].glob("lib/python*/site-packages")]
    found = importlib.metadata.distributions(name=package, path=folders)
    return next((distribution.version for distribution in found), "")
