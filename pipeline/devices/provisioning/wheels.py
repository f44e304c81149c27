"""The wheels of a runtime for one board's Python: which they are, by a lock that names each file with its SHA-256, and
how they come here.

``make lock-boards`` writes the locks, one for each runtime, Python and architecture that there are wheels for.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from device_agent.protocol import check_identifier
from pipeline.cache import Cache, key_of
from pipeline.devices.agent_stream import printable
from pipeline.errors import ProvisioningFailed

FETCH_TIMEOUT_S = 900.0

_PIN = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9a-z.+]+) --hash=sha256:(?P<sha256>[0-9a-f]{64}) # (?P<file>[\w.+-]+\.whl)"
)
_LOCK = re.compile(r"(?P<runtime>[a-z_]+)-cp(?P<major>\d)(?P<minor>\d+)-(?P<machine>\w+)\.txt")
_GLIBC = re.compile(r"manylinux_(\d+)_(\d+)_\w+")
# PEP 599 and before gave names instead of versions.
_NAMED_GLIBC = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


@dataclass(frozen=True)
class Wheel:
    """One file of a package."""

    name: str
    version: str
    sha256: str
    file: str

    @property
    def tags(self) -> tuple[str, ...]:
        """The platforms that it is for, as in its name."""
        return tuple(self.file.removesuffix(".whl").split("-")[-1].split("."))

    @property
    def glibc(self) -> tuple[int, ...]:
        """The oldest glibc that it runs with."""
        return min(_glibc(tag) for tag in self.tags)


@dataclass(frozen=True)
class Lock:
    """The wheels of one runtime for CPython ``python`` on ``machine``."""

    runtime: str
    python: tuple[int, int]
    machine: str
    wheels: tuple[Wheel, ...]
    text: str

    @property
    def title(self) -> str:
        """How messages name it: ``tflite-runtime 2.14.0``; the runtime comes first in its lock."""
        return f"{self.wheels[0].name} {self.wheels[0].version}"

    @property
    def glibc(self) -> tuple[int, ...]:
        """The oldest glibc that all of it runs with."""
        return max(wheel.glibc for wheel in self.wheels)

    @property
    def has_numpy(self) -> bool:
        """Whether there is a wheel of numpy for this board."""
        return any(wheel.name == "numpy" for wheel in self.wheels)


def find_lock(runtime: str, python: tuple[int, ...], machine: str) -> Lock | None:
    """Return the lock for CPython ``python`` on ``machine``; None when there are no wheels for that."""
    check_identifier("runtime", runtime)
    file = _locks().joinpath(f"{runtime}-cp{python[0]}{python[1]}-{machine}.txt")
    return _parse(file.name, file.read_text(encoding="utf-8")) if file.is_file() else None


def all_locks() -> list[Lock]:
    """Return every lock, sorted by runtime, machine and Python."""
    files = [file for file in _locks().iterdir() if _LOCK.fullmatch(file.name)]
    found = [_parse(file.name, file.read_text(encoding="utf-8")) for file in files]
    return sorted(found, key=lambda lock: (lock.runtime, lock.machine, lock.python))


def fetch_wheels(lock: Lock, cache: Cache) -> dict[str, Path]:
    """Return the path of each wheel of ``lock`` by its file name, fetched by pip unless it is in the cache.

    Raises:
        ProvisioningFailed: if pip cannot fetch one of them, or gets another content than the lock names.
        StorageError: if this machine's disk is full.
    """
    with cache.lock("wheels", key_of(lock.text)), cache.entry("wheels", key_of(lock.text)) as (folder, is_there):
        if not is_there:
            requirements = folder / "requirements.txt"
            with cache.writing(requirements):
                requirements.write_text(lock.text, encoding="utf-8")
            _download(lock, folder, requirements)
        for wheel in lock.wheels:
            check_wheel(folder / wheel.file, wheel)
    return {wheel.file: cache.folder / "wheels" / key_of(lock.text) / wheel.file for wheel in lock.wheels}


def check_wheel(path: Path, wheel: Wheel) -> None:
    """Raise ProvisioningFailed unless ``path`` has the very content that the lock names."""
    if not path.is_file():
        raise ProvisioningFailed(f"{path} is missing; remove that folder and run again")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise ProvisioningFailed(
            f"{path} has the SHA-256 {found}, not {wheel.sha256}; remove that folder and run again"
        )


def _download(lock: Lock, folder: Path, requirements: Path) -> None:
    tags = dict.fromkeys(tag for wheel in lock.wheels for tag in wheel.tags)
    python = f"cp{lock.python[0]}{lock.python[1]}"
    words = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--implementation=cp"]
    words += [f"--python-version={lock.python[0]}.{lock.python[1]}"]
    words += [f"--abi={abi}" for abi in (python, "abi3", "none")]
    words += [f"--platform={tag}" for tag in tags if tag != "any"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    try:
        done = subprocess.run(
            [*command, *words, f"--dest={folder}", f"--requirement={requirements}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FETCH_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProvisioningFailed(f"pip cannot fetch {lock.title}: {error}") from error
    if done.returncode:
        raise ProvisioningFailed(f"pip cannot fetch {lock.title}: {_reason(done.stderr)}")


def _reason(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return printable((errors or lines or ["it did not say why"])[-1])


def _parse(name: str, text: str) -> Lock:
    found = _LOCK.fullmatch(name)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pins = [_PIN.fullmatch(line) for line in lines]
    if found is None or not pins or not all(pins):
        raise ProvisioningFailed(f'{name} is no lock of wheels; run "make lock-boards"')
    wheels = tuple(Wheel(pin["name"], pin["version"], pin["sha256"], pin["file"]) for pin in pins if pin)
    return Lock(found["runtime"], (int(found["major"]), int(found["minor"])), found["machine"], wheels, text)


def _glibc(tag: str) -> tuple[int, ...]:
    found = _GLIBC.fullmatch(tag)
    if found:
        return int(found[1]), int(found[2])
    return next((version for name, version in _NAMED_GLIBC.items() if tag.startswith(f"{name}_")), (0, 0))


def _locks() -> Traversable:
    return importlib.resources.files("pipeline.devices.provisioning").joinpath("locks")
