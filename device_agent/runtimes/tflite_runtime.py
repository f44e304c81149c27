"""TensorFlow Lite's last own package: PyPI ``tflite-runtime`` 2.14, with numpy 1."""

from __future__ import annotations

from importlib.metadata import version as _version

import numpy

from device_agent.runtimes import Model, _interpreter


def version() -> str:
    """Return the version of the installed package."""
    return _version("tflite-runtime")


def probe() -> None:
    """Raise unless models can really be opened."""
    from tflite_runtime.interpreter import Interpreter

    try:
        _interpreter.probe(Interpreter)
    except SystemError as error:
        raise RuntimeError(
            f"tflite-runtime does not work with numpy {numpy.__version__}; it needs numpy < 2"
        ) from error


def open_model(path: str, threads: int, delegate: str, batch: int) -> Model:
    """Open a ``.tflite`` file with the default delegate, XNNPACK for float models."""
    from tflite_runtime.interpreter import Interpreter

    return _interpreter.InterpreterModel(Interpreter(model_path=path, num_threads=threads))
