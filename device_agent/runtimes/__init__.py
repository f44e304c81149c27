"""The runtimes: one module each, its name as in YAML, found without importing any; and whose Python runs which.

A runtime's module has ``version() -> str``, ``probe() -> None``, which raises unless models can really be opened, and
``open_model(path, threads, delegate, batch) -> Model``, and ``open_profiler`` of the same arguments. ``PACKAGE`` is the
Python package that it comes in; a stand-in without one runs nowhere but on a device.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from device_agent.checks import check_identifier

if TYPE_CHECKING:
    from numpy.typing import NDArray


class UnknownRuntime(ValueError):
    """A name that no module has; the text lists those that exist."""


class DelegateUnavailable(RuntimeError):
    """A delegate that this runtime does not have, or that does not work here; the text says which it has."""


class BatchRefused(ValueError):
    """A batch that the model's graph does not take; the text names the batch."""


class ProfileUnavailable(RuntimeError):
    """The reason why the time of each operator cannot be had."""


@dataclass(frozen=True)
class Operator:
    """One operator of a model, in the flatbuffer's order; ``delegated`` when the delegate is known to compute it."""

    name: str
    delegated: bool


@dataclass(frozen=True)
class Tensor:
    """One input or output of a model; ``scale`` is 0 where the tensor is not quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0


class Model(Protocol):
    """An opened model, its memory allocated; inputs and outputs are addressed by their place."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def set_input(self, index: int, array: NDArray[Any]) -> None:
        """Copy ``array``, of the input's very shape and type, into the model."""

    def invoke(self) -> None:
        """Run the model once."""

    def get_output(self, index: int) -> NDArray[Any]:
        """Return a copy of an output."""
        ...

    def operators(self) -> tuple[Operator, ...]:
        """Return the operators of the model; empty where the runtime does not tell."""
        ...


@dataclass(frozen=True)
class TimedOperator:
    """One operator of an average invoke, as the runtime runs it: a delegate splits and joins the flatbuffer's.

    ``source`` is "xnnpack" for an operator inside XNNPACK, "builtin" for one of the runtime's own kernels, "delegate"
    for a whole part of the graph whose delegate does not tell what happens inside. ``mean_ns`` is over the half of the
    profiled invokes that is in the middle by the sum of their operators.
    """

    name: str
    source: str
    mean_ns: float


class Profiler(Protocol):
    """An opened model that times each operator, which makes an invoke slower."""

    inputs: tuple[Tensor, ...]

    def set_input(self, index: int, array: NDArray[Any]) -> None:
        """Copy ``array``, of the input's very shape and type, into the model."""

    def invoke(self) -> None:
        """Run the model once, untimed."""

    def profile(self, min_invokes: int, duration_s: float) -> tuple[tuple[TimedOperator, ...], list[int]]:
        """Return the operators in the order they ran, and the time in ns of each profiled invoke.

        There are at least ``min_invokes`` invokes, and as many more as ``duration_s`` gives room for.

        Raises:
            ProfileUnavailable: if the events that the runtime recorded cannot be trusted.
        """
        ...


class Runtime(Protocol):
    """What the module of a runtime offers."""

    def version(self) -> str:
        """Return the version of the installed runtime."""
        ...

    def probe(self) -> None:
        """Raise unless models can really be opened."""

    def open_model(self, path: str, threads: int, delegate: str, batch: int) -> Model:
        """Open the file, resize its inputs to ``batch`` samples where that is not 1, and allocate its tensors.

        Raises:
            DelegateUnavailable: if this runtime has no such delegate here.
            BatchRefused: if the model's graph does not take ``batch`` samples at a time.
        """
        ...

    def open_profiler(self, path: str, threads: int, delegate: str, batch: int) -> Profiler:
        """Open the file as ``open_model`` does, with a clock around each operator.

        Raises:
            ProfileUnavailable: if this runtime cannot do that, or not with this delegate.
        """
        ...


def known() -> list[str]:
    """Return the names of the runtimes."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(file.stem for file in files if not file.stem.startswith("_"))


def check_known(name: str) -> str:
    """Return ``name`` when there is such a runtime.

    Raises:
        UnknownRuntime: otherwise.
    """
    if name not in known():
        raise UnknownRuntime(f'unknown runtime "{name}"; known: {", ".join(known())}')
    return name


def find(name: str) -> Runtime:
    """Return the module of the runtime called ``name``."""
    module: Any = importlib.import_module(f"device_agent.runtimes.{check_known(check_identifier('runtime', name))}")
    runtime: Runtime = module
    return runtime


def check_delegate(runtime: str, delegate: str, available: Sequence[str]) -> None:
    """Raise DelegateUnavailable unless ``delegate`` is among those that ``runtime`` has."""
    if delegate not in available:
        raise DelegateUnavailable(f'{runtime} has no delegate "{delegate}"; it has {", ".join(available)}')


def python_of(name: str, chosen: Mapping[str, str]) -> str:
    """Return the Python that runs ``name``: the one chosen, a sibling environment of that name, or our own."""
    sibling = Path(sys.prefix).parent / name / "bin" / "python"
    return chosen.get(name) or (str(sibling) if sibling.is_file() else sys.executable)
