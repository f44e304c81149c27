"""Changes to a device's YAML file that leave the rest of it, comments too, as its owner wrote it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from pipeline.cache import write_text
from pipeline.errors import StorageError


def change_device_file(file: Path, changes: dict[str, str | None]) -> bool:
    """Set keys of a device's file, or remove those whose value is None; say whether that changed anything.

    Raises:
        StorageError: if it cannot be written.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    try:
        document: Any = yaml.load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}") from error
    before = {key: document.get(key) for key in changes}
    if before == changes:
        return False
    for key, value in changes.items():
        if value is None:
            document.pop(key, None)
        else:
            document[key] = value
    text = io.StringIO()
    yaml.dump(document, text)
    write_text(file, text.getvalue())
    return True
