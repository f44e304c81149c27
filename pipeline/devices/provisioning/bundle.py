"""Everything that goes to a board: a release, which is the agent, and for each runtime an environment's site-packages.

The same wheels and the same agent give the same tars, byte for byte, wherever they are built: names in order, no times,
no owners. The id of a part is its tar's hash. What travels is the tar, gzipped.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from device_agent.layout import AGENT, MANIFEST
from device_agent.protocol import to_json
from device_agent.releases import Environment, Manifest, Part
from pipeline.cache import Cache, key_of, write_text
from pipeline.devices.provisioning.choice import Choice
from pipeline.devices.provisioning.unzipping import wheel_files
from pipeline.devices.provisioning.wheels import Lock, fetch_wheels

# Raised when a bundle of the same inputs is laid out in another way.
LAYOUT = 1
KEPT_PARTS = 6
# What was used since then may still be on its way to a board.
KEPT_S = 24 * 3600.0
# More takes twice the time for a few per cent.
_COMPRESSION = 3
# The name of the lock of who uses and who removes parts.
_USE = "use"
_KINDS_OF_FILE = (".py", ".service", ".json", ".tflite")

_LAUNCHER = """#!/bin/sh
# Starts the agent of the release that this file lies in: not of "current", which may move on while it runs.
folder=$(cd -P -- "$(dirname -- "$0")/.." && pwd -P) || exit 1
python=$folder/runtimes/{runtime}/bin/python
if [ ! -x "$python" ]; then
    echo "the Python that this agent was installed for is gone; run \\"edgepress device provision\\" again" >&2
    exit 1
fi
# Nothing of the user's own Python gets in, and a release stays as it was tested.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP
PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1
export PYTHONNOUSERSITE PYTHONDONTWRITEBYTECODE
exec "$python" "$folder/agent/edgepress-agent.py" "$@"
"""


# With "-m", whatever lies in the folder that somebody stands in would come first.
_START = b"import sys\n\nfrom device_agent.cli import main\n\nsys.exit(main())\n"


@dataclass(frozen=True)
class File:
    """One file of a bundle, by its path there."""

    name: str
    content: bytes
    is_program: bool = False


@dataclass(frozen=True)
class Sent:
    """A part of a bundle: ``path`` is what travels, ``part`` its names, ``unpacked_bytes`` what it takes there."""

    part: Part
    path: Path
    unpacked_bytes: int

    @property
    def size_bytes(self) -> int:
        """What has to travel when nothing of it is there."""
        return self.path.stat().st_size

    @property
    def word(self) -> str:
        """How the installer is told of it."""
        return f"{self.part.runtime}:{self.part.id}:{self.part.sha256}"


@dataclass(frozen=True)
class Bundle:
    """A release and the environments of its runtimes, built."""

    agent: Sent
    environments: tuple[Sent, ...]

    @property
    def release(self) -> str:
        """The id of the release."""
        return self.agent.part.id

    @property
    def parts(self) -> tuple[Sent, ...]:
        """All of it, the release first."""
        return (self.agent, *self.environments)

    @property
    def size_bytes(self) -> int:
        """What has to travel when nothing is there."""
        return sum(part.size_bytes for part in self.parts)


def build_bundle(choice: Choice, agent: Path, cache: Cache) -> Bundle:
    """Return the bundle of ``choice`` with the package in the folder ``agent``, taken from ``cache`` where it is there.

    Raises:
        ProvisioningFailed: if a wheel cannot be had, or is not what its lock says.
        StorageError: if this machine's disk is full.
    """
    environments = tuple(_environment(lock, cache) for lock in choice.locks)
    manifest = Manifest(
        environments=tuple(Environment(sent.part.runtime, sent.part.id) for sent in environments),
        python=".".join(map(str, choice.python.version[:2])),
        machine=choice.machine,
        agent_version=_agent_version(own := agent_files(agent)),
        board_numpy=choice.board_numpy,
    )
    files = [
        File(MANIFEST, json.dumps(to_json(manifest), sort_keys=True, indent=1).encode()),
        File(AGENT, _LAUNCHER.format(runtime=choice.runtimes[0]).encode(), is_program=True),
        File("agent/edgepress-agent.py", _START),
        *(File(f"agent/{file.name}", file.content) for file in own),
    ]
    return Bundle(_packed("releases", key_of(LAYOUT, hash_of(files)), "", lambda: iter(files), cache), environments)


def _environment(lock: Lock, cache: Cache) -> Sent:
    """Return the environment of a runtime: its wheels, and the way to the agent of whatever release links to it."""

    def files() -> Iterator[File]:
        site = f"lib/python{lock.python[0]}.{lock.python[1]}/site-packages"
        # From a .pth file, paths count from the folder that it lies in: <release>/runtimes/<name>/lib/<python>/….
        yield File(f"{site}/edgepress-agent.pth", b"../../../../../agent\n")
        wheels = fetch_wheels(lock, cache)
        for wheel in lock.wheels:
            for name, content in wheel_files(wheels[wheel.file]):
                yield File(f"{site}/{name}", content)

    return _packed("environments", key_of(LAYOUT, lock.text), lock.runtime, files, cache)


def _packed(kind: str, key: str, runtime: str, files: Callable[[], Iterator[File]], cache: Cache) -> Sent:
    """Return the part that these files make, built unless it is in the cache."""
    _note_use(kind, key, cache)
    with cache.lock(kind, key), cache.entry(kind, key) as (folder, is_there):
        if not is_there:
            _remove_old(kind, cache)
            with cache.writing(folder):
                _pack(files(), folder)
    folder = cache.folder / kind / key
    values = json.loads((folder / "part.json").read_text(encoding="utf-8"))
    return Sent(Part(runtime, values["id"], values["sha256"]), folder / "part.tar.gz", values["unpacked_bytes"])


def agent_files(agent: Path) -> list[File]:
    """Return the files of the agent's package that a board needs, and nothing that Python or an editor leaves there."""
    paths = [path for path in sorted(agent.rglob("[!.]*")) if path.suffix in _KINDS_OF_FILE and path.is_file()]
    return [File(f"device_agent/{path.relative_to(agent).as_posix()}", path.read_bytes()) for path in paths]


def hash_of(files: list[File]) -> str:
    """Return a hash of names and contents."""
    return key_of([(file.name, hashlib.sha256(file.content).hexdigest()) for file in files])


def _pack(files: Iterator[File], folder: Path) -> None:
    packed = folder / "part.tar.gz"
    with packed.open("wb") as out:
        zipped = gzip.GzipFile(filename="", mode="wb", compresslevel=_COMPRESSION, fileobj=out, mtime=0)
        with zipped, _Counted(cast("BinaryIO", zipped)) as counted:
            write_tar(files, cast("BinaryIO", counted))
    with packed.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    values = {"sha256": sha256, "id": counted.sha256[:16], "unpacked_bytes": counted.size_bytes}
    write_text(folder / "part.json", json.dumps(values))


def write_tar(files: Iterator[File], out: BinaryIO) -> None:
    """Write ``files`` as a tar that depends on their names and contents alone."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            member = tarfile.TarInfo(file.name)
            member.size = len(file.content)
            member.mode = 0o755 if file.is_program else 0o644
            tar.addfile(member, io.BytesIO(file.content))


def _agent_version(own: list[File]) -> str:
    """Return the version in the agent's own source, which is that of another tree than ours in the tests."""
    source = next(file.content for file in own if file.name == "device_agent/__init__.py").decode()
    return source.rpartition('__version__ = "')[2].partition('"')[0]


def _note_use(kind: str, key: str, cache: Cache) -> None:
    """Keep a part that is there from being removed by others; what they are about to remove is gone afterwards."""
    with cache.lock(kind, _USE), suppress(FileNotFoundError):
        os.utime(cache.subfolder(kind) / key)


def _remove_old(kind: str, cache: Cache) -> None:
    """Keep what was used last: an environment takes tens of megabytes, and can be built again."""
    with cache.lock(kind, _USE):
        folders = [path for path in cache.subfolder(kind).iterdir() if not path.name.startswith(".")]
        used_s = {path: path.stat().st_mtime for path in folders}
        for path in sorted(folders, key=lambda path: used_s[path])[: 1 - KEPT_PARTS]:
            if used_s[path] < time.time() - KEPT_S:
                shutil.rmtree(path, ignore_errors=True)


class _Counted:
    """A file that counts and hashes what is written to it."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def __enter__(self) -> _Counted:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.size_bytes += len(data)
        return self._out.write(data)

    def tell(self) -> int:
        return self.size_bytes
