"""TensorFlow Lite's last own package: PyPI ``tflite-runtime`` 2.14, with numpy 1."""

from __future__ import annotations

from importlib.metadata import version as _version

import numpy

from device_agent.runtimes import Model, Profiler, ProfileUnavailable, _interpreter, check_delegate

PACKAGE = "tflite-runtime"

_DELEGATES = ("xnnpack", "none")


def version() -> str:
    """Return the version of the installed package."""
    return _version(PACKAGE)


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
    """Open a ``.tflite`` file; "xnnpack", the default, takes float operators only in this version."""
    check_delegate("tflite_runtime", delegate, _DELEGATES)
    from tflite_runtime import interpreter

    return _interpreter.open_interpreter(interpreter, path, threads, delegate, batch)


def open_profiler(path: str, threads: int, delegate: str, batch: int) -> Profiler:
    """Raise ProfileUnavailable: the wheel has no call that gives the times of operators."""
    raise ProfileUnavailable("tflite_runtime has no per-operator profile; litert has one")
