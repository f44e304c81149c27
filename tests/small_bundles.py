"""Bundles that take no time to install: an agent whose self-test is one line, and an environment without packages."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from device_agent.releases import Part

PASSES = "print('fine')\n"
FAILS = "raise SystemExit('the numbers are wrong')\n"
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass(frozen=True)
class SmallPart:
    """A file as a host sends it, and what is in it."""

    part: Part
    path: Path
    files: dict[str, bytes]


@dataclass(frozen=True)
class SmallBundle:
    """A release and its one environment."""

    agent: SmallPart
    environment: SmallPart

    @property
    def release(self) -> str:
        return self.agent.part.id

    @property
    def parts(self) -> tuple[SmallPart, SmallPart]:
        return self.agent, self.environment

    @property
    def words(self) -> tuple[str, ...]:
        """What the installer is told."""
        named = [f"{one.part.runtime}:{one.part.id}:{one.part.sha256}" for one in self.parts]
        return tuple(word for name in named for word in ("--part", name))


def small_bundle(
    folder: Path, version: str, selftest: str = PASSES, extra: int = 0, packages: str = "", **manifest: object
) -> SmallBundle:
    """Write a bundle whose agent has this version; ``extra`` is how many files more each part has."""
    more = {f"data{number}": bytes([number % 256]) * 5000 for number in range(extra)}
    site = f"lib/python{PYTHON}/site-packages"
    environment = write_part(
        folder,
        {
            f"{site}/edgepress-agent.pth": b"../../../../../agent\n",
            f"{site}/packages.py": packages.encode(),
            **{f"{site}/{name}": content for name, content in more.items()},
        },
        "litert",
    )
    said = {"environments": [{"runtime": "litert", "id": environment.part.id}], "python": PYTHON, "machine": "any"}
    agent = write_part(
        folder,
        {
            "release.json": json.dumps({**said, "agent_version": version, **manifest}).encode(),
            "bin/edgepress-agent": b"#!/bin/sh\nexec sleep 60\n",
            "agent/device_agent/__init__.py": f'__version__ = "{version}"\n'.encode(),
            "agent/device_agent/selftest.py": selftest.encode(),
            **{f"agent/device_agent/{name}": content for name, content in more.items()},
        },
    )
    return SmallBundle(agent, environment)


def write_part(folder: Path, files: dict[str, bytes], runtime: str = "", programs: tuple[str, ...] = ()) -> SmallPart:
    """Write a part of these files; those in ``programs`` may be run."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if name in programs else 0o644
            tar.addfile(member, io.BytesIO(content))
    content = gzip.compress(packed.getvalue(), mtime=0)
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / f"{sha256[:8]}.tar.gz"
    path.write_bytes(content)
    return SmallPart(Part(runtime, hashlib.sha256(packed.getvalue()).hexdigest()[:16], sha256), path, files)
