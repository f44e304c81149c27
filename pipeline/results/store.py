"""``report.json``: a run's record on disk, complete or not there at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pipeline.cache import storage_error
from pipeline.errors import UsageError
from pipeline.results.record import SCHEMA, RunRecord

REPORT_JSON = "report.json"

Migrations = Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]
T = TypeVar("T")


def write_record(record: RunRecord, folder: Path) -> Path:
    """Write ``record`` as ``folder/report.json`` and return that path.

    Raises:
        StorageError: if the disk is full or refuses; what was there before is then still there.
    """
    path = folder / REPORT_JSON
    write_whole(path, record_json(record))
    return path


def record_json(record: RunRecord) -> str:
    """Return ``record`` as indented JSON; each variant also says ``valid``, for readers such as ``jq``."""
    content = dataclasses.asdict(record)
    for variant, written in zip(record.variants, content["variants"], strict=True):
        written["valid"] = variant.valid
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_record(path: Path) -> RunRecord:
    """Return the record in the ``report.json`` at ``path``.

    Raises:
        UsageError: if there is no such file, it is no record, or its schema is a later one.
    """
    return read_as(RunRecord, path, SCHEMA, _MIGRATIONS)


def read_as(kind: type[T], path: Path, schema: int, migrations: Migrations) -> T:
    """Return the record of ``kind`` in the JSON file at ``path``, brought from its own schema to ``schema``.

    Raises:
        UsageError: if there is no such file, it is no record, or its schema is a later one.
    """
    from pydantic import TypeAdapter, ValidationError

    content = _migrated(_read_json(path), path, schema, migrations)
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise UsageError(f"{path}: is damaged: {_first_mistake(error.errors())}") from error


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` under a temporary name and rename it, so that no reader sees half of it.

    Raises:
        StorageError: if the disk is full or refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise storage_error(error, path) from error


def _migrated(content: Any, path: Path, current: int, migrations: Migrations) -> Any:
    """Return a record of any schema so far as one of today's."""
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema is None:
        raise UsageError(f"{path}: is no report of edgepress: it has no schema number")
    if schema not in (*migrations, current):
        reads = f"1 to {current}" if current > 1 else "1"
        raise UsageError(f"{path}: schema is {schema!r}; this edgepress reads {reads}; use the one that wrote it")
    while schema != current:
        content, schema = migrations[schema](content), schema + 1
    return content


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 has more fields, which were not measured before: their defaults say so."""
    return {**content, "schema": 2}


def _from_2(content: dict[str, Any]) -> dict[str, Any]:
    """Schema 3 has the evidence of each step, which was not taken before: its default says so."""
    return {**content, "schema": 3}


def _from_3(content: dict[str, Any]) -> dict[str, Any]:
    """Schema 4 knows boards that are emulated, which nobody looked for before: the default says that it is none."""
    return {**content, "schema": 4}


_MIGRATIONS: Migrations = {1: _from_1, 2: _from_2, 3: _from_3}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not JSON: {error}") from error


def _first_mistake(mistakes: list[Any]) -> str:
    where = ".".join(str(part) for part in mistakes[0]["loc"])
    return f"{where}: {mistakes[0]['msg'].lower()}"
