"""Writing a fetched file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from pipeline.cache import storage_error


@contextmanager
def whole_file(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that writes; ``path`` is there when the block ends well, and nothing is when it does not.

    Raises:
        StorageError: if this machine's disk is full or refuses to be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _told(path):
            # Unbuffered: what cannot be written is told by the write, not at some later close.
            out = temporary.open("wb", buffering=0)

        def write(data: bytes) -> None:
            with _told(path):
                write_all(out, data)

        with out:
            yield write
        with _told(path):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_all(out: FileIO, data: bytes) -> None:
    """Write all of ``data`` to an unbuffered file, which may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[out.write(view) :]


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error
