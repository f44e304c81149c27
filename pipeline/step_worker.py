"""One TensorFlow step in a process of its own: ``python -m pipeline.step_worker REQUEST.json``.

Progress and, at the end, the outcome go to the parent as one JSON object a line on what was standard output at the
start; whatever TensorFlow prints goes to standard error, which the parent keeps as the step's log.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from pipeline import compression
from pipeline.errors import EdgepressError, StepError
from pipeline.training_data import TrainingData

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Read the request, do the step, tell the outcome."""
    _die_with_parent()
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        _STEPS[request["kind"]](request, channel)
    except EdgepressError as error:
        _tell(channel, error=type(error).__name__, message=str(error))
    except MemoryError:
        _tell(channel, error="StepError", message="not enough memory on this machine")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _tell(channel, error="DiskFull", message=str(error))
    else:
        _tell(channel, finished=True)


def _inspect(request: dict[str, Any], channel: TextIO) -> None:
    from pipeline import export

    source = Path(request["source"])
    if request["format"] == "tflite":
        inputs, outputs = export.flatbuffer_tensors(source.read_bytes())
    else:
        inputs, outputs = export.model_tensors(_load(request))
    _write(request, "model.json", {"inputs": [asdict(t) for t in inputs], "outputs": [asdict(t) for t in outputs]})


def _rewrite(request: dict[str, Any], channel: TextIO) -> None:
    # TF-MOT sets TF_USE_LEGACY_KERAS as it is imported; setting it here first makes the order of imports irrelevant.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tf_keras

    from pipeline.model_files import as_tf_keras

    data = _data(request)
    tf_keras.utils.set_random_seed(data.seed)
    model = as_tf_keras(_load(request), Path(request["source"]))
    (step,) = request["steps"]
    technique = compression.technique(step["technique"])
    settings = technique.Settings.model_validate(step["settings"])
    _write(request, "untreated.json", {"layers": _untreated(technique, model, settings)})
    rewritten = technique.rewrite(
        model, settings, data, lambda fraction, text: _tell(channel, fraction=fraction, text=text)
    )
    rewritten.save(Path(request["folder"]) / "model.keras")


def _untreated(technique: Any, model: Any, settings: Any) -> list[dict[str, str]]:
    """Return the layers that a technique leaves as they are; with ``strict`` they are an error before any training."""
    found = technique.untreated(model, settings) if hasattr(technique, "untreated") else []
    if found and settings.strict:
        named = "; ".join(f"{layer.layer}: {layer.reason}" for layer in found)
        raise StepError(f"strict is true, and these layers cannot be treated: {named}")
    return [asdict(layer) for layer in found]


def _export(request: dict[str, Any], channel: TextIO) -> None:
    from pipeline import export

    data = _data(request)
    if request["format"] == "tflite":
        content, parity = Path(request["source"]).read_bytes(), None
    else:
        model = _load(request)
        content = export.convert(model, data, lambda converter: _configure(converter, request, data))
        _tell(channel, fraction=0.9, text="comparing outputs")
        parity = export.parity_db(model, content, data)
    inputs, outputs = export.flatbuffer_tensors(content)
    (Path(request["folder"]) / "model.tflite").write_bytes(content)
    facts = {
        "sha256": export.sha256(content),
        "size_bytes": len(content),
        "gzip_bytes": export.gzip_size(content),
        "inputs": [asdict(tensor) for tensor in inputs],
        "outputs": [asdict(tensor) for tensor in outputs],
        "parity_db": parity,
    }
    _write(request, "artifact.json", facts)


_STEPS = {"inspect": _inspect, "rewrite": _rewrite, "export": _export}


def _configure(converter: Any, request: dict[str, Any], data: TrainingData) -> None:
    for step in request["steps"]:
        technique = compression.technique(step["technique"])
        technique.configure(converter, technique.Settings.model_validate(step["settings"]), data)


def _load(request: dict[str, Any]) -> Any:
    from pipeline.model_files import load_keras

    return load_keras(Path(request["source"]), request["format"])


def _data(request: dict[str, Any]) -> TrainingData:
    fields = dict(request["data"])
    labels = fields.pop("labels_file")
    return TrainingData(
        inputs_file=Path(fields.pop("inputs_file")), labels_file=None if labels is None else Path(labels), **fields
    )


def _write(request: dict[str, Any], name: str, facts: dict[str, Any]) -> None:
    (Path(request["folder"]) / name).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _tell(channel: TextIO, **message: Any) -> None:
    channel.write(json.dumps(message) + "\n")


def _die_with_parent() -> None:
    """A parent that was killed takes its training along; Linux only, elsewhere the step ends by itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
