"""Two files at the end of a training: the checkpoint, and how it was made."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any


def library_versions() -> dict[str, str]:
    """Of what decides the bits of a trained model."""
    import keras
    import numpy as np
    import tensorflow as tf

    return {
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }


def weights_sha256(model: Any) -> str:
    """Of all weights in order: equal for equal weights, while a ``.keras`` file also holds the time it was saved."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def write_checkpoint(model: Any, checkpoint: Path, provenance: dict[str, Any]) -> dict[str, Any]:
    """Writes the model and, beside it, its provenance as JSON; each under a temporary name first.

    Args:
        model: not compiled, so that no optimizer state is stored.
        checkpoint: its name ends in ``.keras``; the provenance's ends in ``.json``.

    Returns:
        ``provenance`` with the checkpoint's size and hashes.
    """
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    part = checkpoint.with_name(f".{checkpoint.stem}.part.keras")
    model.save(part)
    content = part.read_bytes()
    complete = provenance | {
        "checkpoint": checkpoint.name,
        "checkpoint_bytes": len(content),
        "checkpoint_sha256": hashlib.sha256(content).hexdigest(),
        "weights_sha256": weights_sha256(model),
    }
    notes = checkpoint.with_name(f".{checkpoint.stem}.json.part")
    notes.write_text(json.dumps(complete, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(checkpoint)
    notes.replace(checkpoint.with_suffix(".json"))
    return complete
