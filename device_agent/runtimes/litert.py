"""LiteRT, the successor of TensorFlow Lite: PyPI ``ai-edge-litert``, with numpy 2."""

from __future__ import annotations

from importlib.metadata import version as _version

from device_agent.runtimes import Model, Profiler, ProfileUnavailable, _interpreter, check_delegate

PACKAGE = "ai-edge-litert"

_DELEGATES = ("xnnpack", "none", "gpu")


def version() -> str:
    """Return the version of the installed package."""
    return _version(PACKAGE)


def probe() -> None:
    """Raise unless models can really be opened."""
    from ai_edge_litert.interpreter import Interpreter

    _interpreter.probe(Interpreter)


def open_model(path: str, threads: int, delegate: str, batch: int) -> Model:
    """Open a ``.tflite`` file; "gpu" needs a Vulkan device and ignores ``threads``."""
    check_delegate("litert", delegate, _DELEGATES)
    if delegate == "gpu":
        from device_agent.runtimes import _gpu

        return _gpu.open_on_gpu(path, batch)
    from ai_edge_litert import interpreter

    return _interpreter.open_interpreter(interpreter, path, threads, delegate, batch)


def open_profiler(path: str, threads: int, delegate: str, batch: int) -> Profiler:
    """Open a ``.tflite`` file so that each operator is timed."""
    check_delegate("litert", delegate, _DELEGATES)
    if delegate == "gpu":
        raise ProfileUnavailable("litert has no per-operator profile on the gpu; it has one for xnnpack and none")
    from device_agent.runtimes import _litert_profiler

    return _litert_profiler.open_profiler(path, threads, delegate, batch)
