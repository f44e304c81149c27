"""Writes the locks of wheels for boards: ``python lock_boards.py``, or ``make lock-boards``.

One file for each runtime, Python and architecture that there are wheels for, with one line for each wheel: the very
file and its SHA-256, so that a bundle is the same whenever it is built. pip resolves, since uv does not say which of a
version's files it means; nothing is downloaded but what the index says of the wheels.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LOCKS = HERE.parent / "pipeline" / "devices" / "provisioning" / "locks"
BOARDS = {
    "litert": {"aarch64": range(9, 15), "x86_64": range(9, 15)},
    "tflite_runtime": {"aarch64": range(9, 12), "x86_64": range(9, 12), "armv7l": range(9, 12)},
}
# pip takes every tag by itself: it does not know that a newer glibc runs what an older one does.
GLIBC = (5, 12, 17, 24, 26, 27, 28, 31, 34, 35, 36, 38, 39)


def main() -> None:
    """Write every lock anew, once all are known: when one cannot be resolved, the old ones stay."""
    locks: dict[str, str] = {}
    for runtime, machines in BOARDS.items():
        for machine, minors in machines.items():
            for minor in minors:
                text = lock(runtime, machine, minor)
                if text:
                    locks[f"{runtime}-cp3{minor}-{machine}.txt"] = text
    LOCKS.mkdir(exist_ok=True)
    for file in LOCKS.glob("*.txt"):
        file.unlink()
    for name, text in locks.items():
        (LOCKS / name).write_text(text)


def lock(runtime: str, machine: str, minor: int) -> str | None:
    """Return one lock; None, having said so, where there are no wheels for it."""
    wanted = requirements(runtime)
    wheels = [(requirement, resolve(requirement, machine, minor)) for requirement in wanted]
    name = f"{runtime}-cp3{minor}-{machine}"
    if wheels[0][1] is None:
        print(f"{name}: no wheel of {wanted[0]}")
        return None
    missing = [requirement for requirement, line in wheels if line is None]
    header = f'# Made by "make lock-boards": {runtime} for CPython 3.{minor} on {machine}.\n'
    header += "".join(f"# There is no wheel of {requirement}.\n" for requirement in missing)
    print(f"{name}: {', '.join(line.split()[0] for _, line in wheels if line)}")
    return header + "".join(f"{line}\n" for _, line in wheels if line)


def requirements(runtime: str) -> list[str]:
    """Return the lines of the runtime's ``.in`` file."""
    lines = (HERE / "board" / f"{runtime}.in").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def resolve(requirement: str, machine: str, minor: int) -> str | None:
    """Return the line of the newest wheel that fits; None when there is none."""
    platforms = [f"manylinux_2_{glibc}_{machine}" for glibc in GLIBC]
    platforms += [f"{name}_{machine}" for name in ("manylinux1", "manylinux2010", "manylinux2014")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version=3.{minor}", f"--abi=cp3{minor}", "--abi=abi3", "--abi=none"]
    command += [f"--platform={platform}" for platform in platforms]
    done = subprocess.run(
        [*command, "--target=unused", "--report=-", requirement], capture_output=True, text=True, check=False
    )
    if done.returncode:
        if "No matching distribution" not in done.stderr:
            sys.exit(done.stderr)
        return None
    [found] = json.loads(done.stdout)["install"]
    download, metadata = found["download_info"], found["metadata"]
    file = download["url"].rpartition("/")[2]
    name = re.sub(r"[-_.]+", "-", metadata["name"]).lower()
    return f"{name}=={metadata['version']} --hash=sha256:{download['archive_info']['hashes']['sha256']} # {file}"


if __name__ == "__main__":
    main()
