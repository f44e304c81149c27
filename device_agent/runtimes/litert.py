"""LiteRT, the successor of TensorFlow Lite: PyPI ``ai-edge-litert``, with numpy 2."""

from __future__ import annotations

from importlib.metadata import version as _version

from device_agent.runtimes import Model, _interpreter


def version() -> str:
    """Return the version of the installed package."""
    return _version("ai-edge-litert")


def probe() -> None:
    """Raise unless models can really be opened."""
    from ai_edge_litert.interpreter import Interpreter

    _interpreter.probe(Interpreter)


def open_model(path: str, threads: int, delegate: str, batch: int) -> Model:
    """Open a ``.tflite`` file with the default delegate, XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    return _interpreter.InterpreterModel(Interpreter(model_path=path, num_threads=threads))
