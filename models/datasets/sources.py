"""Where data files come from: a folder the user names, the cache, an installed package, or a download.

Whatever a source hands over is checked against the SHA-256 of its content before anybody sees it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from models.datasets.dataset import Collection, DataFile, DataUnavailable, SourceFailed
from models.datasets.debian import download_package
from models.datasets.web import download_file

Progress = Callable[[str, int, int], None]

GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Fetched:
    """Verified content by file name, and in words where it came from."""

    content: dict[str, bytes]
    source: str


@dataclass(frozen=True)
class Found:
    """What a source says a file holds, not yet checked; ``place`` is its path or its name, for messages."""

    file: DataFile
    raw: bytes
    place: str


Source = Callable[[Collection, list[DataFile], Progress], Iterator[Found]]


def fetch(collection: Collection, folder: Path | None, cache: Path, progress: Progress) -> Fetched:
    """All files of a collection, from the first places that have them.

    Args:
        collection: the files and where they are published.
        folder: when given, the only place that is looked at; it is not copied to the cache.
        cache: what was fetched is kept in ``datasets/<collection's name>`` under it, unpacked.
        progress: called with what is being fetched, bytes done and bytes in all; 0 in all when that is not known.

    Raises:
        DataUnavailable: a file of the named folder is missing or damaged, or no source had a file.
        OSError: the cache cannot be written.
    """
    if folder is not None:
        return _from_named_folder(collection, folder)
    kept = cache / "datasets" / collection.name
    content, reasons = _from_cache(collection, kept)
    origins = [f"cache {kept}"] if content else []
    for title, source in _sources(collection):
        missing = [file for file in collection.files if file.name not in content]
        if not missing:
            break
        try:
            for found in source(collection, missing, progress):
                content[found.file.name] = verified(found)
                _keep(kept / found.file.unpacked_name, content[found.file.name])
            origins.append(title)
        except SourceFailed as failure:
            reasons.append(f"{title}: {failure}")
    if len(content) < len(collection.files):
        raise DataUnavailable(_all_failed(collection, reasons))
    return Fetched(content, ", ".join(origins))


def _sources(collection: Collection) -> list[tuple[str, Source]]:
    return [
        (f"installed Debian package {collection.debian_package}", _installed_package),
        (f"download from {collection.url}", _published_files),
        (f"Debian package {collection.debian_package}, fetched without root", _fetched_package),
    ]


def _installed_package(collection: Collection, missing: list[DataFile], progress: Progress) -> Iterator[Found]:
    if not collection.debian_folder.is_dir():
        raise SourceFailed(f"there is no folder {collection.debian_folder}")
    for file in missing:
        yield _read(collection.debian_folder, file)


def _published_files(collection: Collection, missing: list[DataFile], progress: Progress) -> Iterator[Found]:
    for file in missing:
        yield Found(file, download_file(collection.url + file.name, file, progress), file.name)


def _fetched_package(collection: Collection, missing: list[DataFile], progress: Progress) -> Iterator[Found]:
    with download_package(collection.debian_package, progress) as root:
        for file in missing:
            yield _read(root / collection.debian_folder.relative_to("/"), file)


def _from_named_folder(collection: Collection, folder: Path) -> Fetched:
    if not folder.is_dir():
        raise DataUnavailable(f"{folder} is not a folder; expected one that holds {_names(collection)}")
    content: dict[str, bytes] = {}
    mistakes: list[str] = []
    for file in collection.files:
        try:
            content[file.name] = verified(_read(folder, file))
        except SourceFailed as failure:
            mistakes.append(str(failure))
    if mistakes:
        raise DataUnavailable(f"{folder} does not hold {collection.name}: " + "; ".join(mistakes))
    return Fetched(content, f"folder {folder}")


def _from_cache(collection: Collection, kept: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files that are there and whole, and what is wrong with the others that are there."""
    content: dict[str, bytes] = {}
    reasons: list[str] = []
    for file in collection.files:
        if not (kept / file.unpacked_name).exists():
            continue
        try:
            content[file.name] = verified(_read(kept, file))
        except SourceFailed as failure:
            reasons.append(f"cache: {failure}")
    return content, reasons


def _read(folder: Path, file: DataFile) -> Found:
    names = (file.name, file.unpacked_name)
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise SourceFailed(f"{folder} has no {' or '.join(dict.fromkeys(names))}")
    try:
        return Found(file, path.read_bytes(), str(path))
    except OSError as error:
        raise SourceFailed(f"{path}: {error.strerror}") from error


def verified(found: Found) -> bytes:
    """The content, unpacked when it is gzip.

    Raises:
        SourceFailed: it is not gzip to its end, or its SHA-256 is another; names the file, found and expected.
    """
    content = _unpacked(found)
    actual = hashlib.sha256(content).hexdigest()
    if actual != found.file.sha256:
        raise SourceFailed(f"{found.place}: sha256 of the content is {actual}, expected {found.file.sha256}")
    return content


def _unpacked(found: Found) -> bytes:
    if not found.raw.startswith(GZIP_MAGIC):
        return found.raw
    try:
        # One byte more than expected shows that a file is too long; more would fill memory for nothing.
        return gzip.GzipFile(fileobj=io.BytesIO(found.raw)).read(found.file.size_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceFailed(f"{found.place}: damaged gzip file ({error})") from error


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _all_failed(collection: Collection, reasons: list[str]) -> str:
    tried = "".join(f"\n  {reason}" for reason in reasons)
    return f"{collection.name}: no source had it; name a folder that holds {_names(collection)}{tried}"


def _names(collection: Collection) -> str:
    return ", ".join(file.name for file in collection.files)
