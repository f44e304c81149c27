"""The files of a wheel, checked: plain relative names, none twice, contents as the wheel's own RECORD has them."""

from __future__ import annotations

import base64
import csv
import hashlib
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ProvisioningFailed

# No agent imports or compiles any of it: tests, type stubs, headers, static libraries.
_UNWANTED_FOLDERS = ("tests", "__pycache__")
_UNWANTED_ENDS = (".pyi", ".pxd", ".pyx", ".h", ".hpp", ".a", ".lib", ".pyc")
_RECORD = ".dist-info/RECORD"


def wheel_files(wheel: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of ``wheel`` that is of use on a board, in the order of their names.

    Names count from site-packages. Of a wheel's ``.data`` folder (PEP 427) what belongs there is taken; scripts,
    headers and data are not.

    Raises:
        ProvisioningFailed: if the archive is damaged, or has a name that could lead out of a folder.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            hashes = _recorded(archive, wheel)
            for target, info in sorted(_targets(archive, wheel).items()):
                content = archive.read(info)
                _check(content, hashes.get(info.filename), info.filename, wheel)
                yield target, content
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise ProvisioningFailed(f"{wheel.name} is no wheel: {error}") from error


def _targets(archive: zipfile.ZipFile, wheel: Path) -> dict[str, zipfile.ZipInfo]:
    targets: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        parts = _parts(info, wheel)
        if info.is_dir() or not parts:
            continue
        target = "/".join(parts)
        if target in targets:
            raise ProvisioningFailed(f"{wheel.name} has {target} twice")
        targets[target] = info
    return targets


def _parts(info: zipfile.ZipInfo, wheel: Path) -> list[str]:
    """Return where the file goes; nothing when it is not wanted."""
    parts = info.filename.removesuffix("/").split("/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ProvisioningFailed(f"{wheel.name} has {info.filename!r}, which is neither a file nor a folder")
    if any(part in ("", ".", "..") or "\\" in part or ":" in part or not part.isprintable() for part in parts):
        raise ProvisioningFailed(f"{wheel.name} has {info.filename!r}, which is no plain relative path")
    if parts[0].endswith(".data"):
        parts = parts[2:] if parts[1:2] in (["purelib"], ["platlib"]) else []
    is_wanted = parts and not set(parts[:-1]) & set(_UNWANTED_FOLDERS) and not parts[-1].endswith(_UNWANTED_ENDS)
    return parts if is_wanted else []


def _recorded(archive: zipfile.ZipFile, wheel: Path) -> dict[str, str]:
    """Return the SHA-256 of each file, as RECORD has it: urlsafe base64 without padding (PEP 427)."""
    names = [name for name in archive.namelist() if name.endswith(_RECORD) and name.count("/") == 1]
    if len(names) != 1:
        raise ProvisioningFailed(f"{wheel.name} has {len(names)} files called RECORD; expected one")
    rows = csv.reader(archive.read(names[0]).decode("utf-8").splitlines())
    return {row[0]: row[1].removeprefix("sha256=") for row in rows if len(row) == 3 and row[1].startswith("sha256=")}


def _check(content: bytes, recorded: str | None, name: str, wheel: Path) -> None:
    if name.endswith((_RECORD, ".dist-info/RECORD.jws")):
        return
    found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode("ascii").rstrip("=")
    if found != recorded:
        raise ProvisioningFailed(f"{wheel.name}: {name} is not what its RECORD says")
