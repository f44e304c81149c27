"""A Debian package's files without being root and without installing it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.datasets.dataset import SourceFailed

Progress = Callable[[str, int, int], None]

DEADLINE_S = 600.0

# Lists and caches of our own, the system's sources. Hooks that a system runs after its own updates are left out: they
# clean and announce folders that are none of ours. (#clear works in a file given by -c alone: those are read last.)
APT_CONFIGURATION = """\
Dir::State "{folder}/state";
Dir::State::Lists "{folder}/state/lists";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "{folder}/cache";
Acquire::http::Timeout "15";
Acquire::https::Timeout "15";
Acquire::Retries "1";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


@contextmanager
def download_package(package: str, progress: Progress) -> Iterator[Path]:
    """A temporary folder that holds a package's files as they would stand under ``/``.

    The system's package lists are tried first; when they are missing or too old, lists of our own are fetched.

    Raises:
        SourceFailed: no apt on this machine, no such package, no network, or ten minutes were not enough.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise SourceFailed(f"this machine has no {tool}")
    with tempfile.TemporaryDirectory(prefix="edgepress-") as name:
        folder = Path(name)
        archive = _download_archive(package, folder, progress)
        root = folder / "root"
        _run(["dpkg-deb", "-x", str(archive), str(root)], folder, lambda line: None)
        yield root


def _download_archive(package: str, folder: Path, progress: Progress) -> Path:
    try:
        _apt_download(package, folder, [], progress)
    except SourceFailed:
        configuration = _private_configuration(folder)
        progress("Debian's package lists", 0, 0)
        trouble = _update_lists(folder, configuration)
        try:
            _apt_download(package, folder, configuration, progress)
        except SourceFailed as failure:
            raise SourceFailed(f"{failure}{trouble}") from failure
    return next(folder.glob("*.deb"))


def _update_lists(folder: Path, configuration: list[str]) -> str:
    """What went wrong, in words; of no weight when the package is found all the same in a list that did come."""
    try:
        lines = _run(["apt-get", *configuration, "-q", "update"], folder, lambda line: None)
    except SourceFailed as failure:
        return f"; update: {failure}"
    warnings = [line.removeprefix("W: ") for line in lines if line.startswith("W: ")]
    return f"; update: {warnings[0]}" if warnings else ""


def _private_configuration(folder: Path) -> list[str]:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    path = folder / "apt.conf"
    path.write_text(APT_CONFIGURATION.format(folder=folder), encoding="utf-8")
    return ["-c", str(path)]


def _apt_download(package: str, folder: Path, configuration: list[str], progress: Progress) -> None:
    apt = ["apt-get", *configuration]
    described = _run([*apt, "--print-uris", "download", package], folder, lambda line: None)
    total = _size_bytes(described)

    def tell(line: str) -> None:
        if line.startswith("dlstatus:"):
            progress(f"{package} (Debian)", int(total * float(line.split(":")[2]) / 100), total)

    _run([*apt, "-q", "-o", "APT::Status-Fd=1", "download", package], folder, tell)


def _size_bytes(described: list[str]) -> int:
    """From apt's ``'uri' file-name size hash``; 0 when apt prints something else."""
    words = described[-1].split() if described else []
    return int(words[2]) if len(words) > 2 and words[2].isdigit() else 0


def _run(command: list[str], folder: Path, on_line: Callable[[str], None]) -> list[str]:
    """The lines a command prints; killed when it outlives its deadline."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    watchdog = threading.Timer(DEADLINE_S, _kill_group, [process])
    watchdog.daemon = True
    watchdog.start()
    lines: list[str] = []
    try:
        for line in process.stdout or ():
            lines.append(line.strip())
            on_line(lines[-1])
        process.wait()
    finally:
        watchdog.cancel()
        _kill_group(process)
        process.wait()
    if process.returncode != 0:
        raise SourceFailed(_reason(command, process.returncode, lines))
    return lines


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Ends a command and what it started, apt's download methods above all; nothing when it has been waited for."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _reason(command: list[str], code: int, lines: list[str]) -> str:
    errors = [line.removeprefix("E: ") for line in lines if line.startswith(("E: ", "dpkg-deb: error"))]
    said = "; ".join(errors or lines[-1:] or ["nothing printed"])
    if code < 0:
        said = f"killed by signal {-code}, at the latest after {DEADLINE_S:.0f} s; {said}"
    return f"{Path(command[0]).name}: {said}"
