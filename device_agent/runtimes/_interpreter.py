"""What LiteRT and tflite-runtime have in common: the ``Interpreter`` class and its traps."""

from __future__ import annotations

from base64 import b85decode
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.runtimes import BatchRefused, Operator, Tensor
from device_agent.runtimes._operators import marked_operators

# The smallest model: one float32 tensor [1], its input and its output, and no operator. Made with the flatbuffer schema
# in ai_edge_litert.schema_py_generated.
_IDENTITY = b85decode(
    "7ytkOR7OlQ000gE6aWwa3;+lK000C44gdfE5C8xG8~^|Sga7~l0{{R30RR912mk;81ONm81ONa40RR915C8xG3;+}W5C9AS2mk~C3;+NC5C8xG5C8"
    "xG6aWAK7ytkO000000RR91000000RR91000000RR915C8xG3;+xO2mk;8000C43;+NC2mk;83;+NC00000000000RR910RR9100000"
)


@dataclass(frozen=True)
class Flatbuffer:
    """What a file says of itself: its tensors, their indices, and the names of its operators."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    input_indices: tuple[int, ...]
    output_indices: tuple[int, ...]
    operators: tuple[str, ...]


class InterpreterModel:
    """A model behind a TFLite ``Interpreter`` with its tensors allocated.

    The tensors' indices are looked up once, since that takes 10 µs. ``nodes`` is how many operators the flatbuffer has.
    """

    def __init__(self, interpreter: Any, nodes: int) -> None:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs = tuple(tensor(details) for details in inputs)
        self.outputs = tuple(tensor(details) for details in outputs)
        self.invoke = interpreter.invoke
        self._interpreter = interpreter
        self._nodes = nodes
        self._input_indices = [details["index"] for details in inputs]
        self._output_indices = [details["index"] for details in outputs]

    def set_input(self, index: int, array: NDArray[Any]) -> None:
        """Copy ``array`` into the model."""
        self._interpreter.set_tensor(self._input_indices[index], array)

    def get_output(self, index: int) -> NDArray[Any]:
        """Return a copy of an output; a view held on to would make the next ``invoke`` fail."""
        output: NDArray[Any] = self._interpreter.get_tensor(self._output_indices[index])
        return output

    def operators(self) -> tuple[Operator, ...]:
        """Return the operators of the main subgraph, marked where a node of the delegate computes them."""
        return marked_operators(self._interpreter._get_ops_details(), self._nodes)


def open_interpreter(module: Any, path: str, threads: int, delegate: str, batch: int) -> InterpreterModel:
    """Open a file with the ``Interpreter`` of ``module``; ``delegate`` is "xnnpack", its default, or "none".

    Raises:
        BatchRefused: if the graph does not take ``batch`` samples at a time.
        ValueError, RuntimeError: what the runtime has against the file.
    """
    resolvers = module.OpResolverType
    resolver = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES if delegate == "none" else resolvers.AUTO
    interpreter = module.Interpreter(model_path=path, num_threads=threads, experimental_op_resolver_type=resolver)
    # The delegate comes in with the allocation and puts its nodes behind the flatbuffer's own.
    nodes = len(interpreter._get_ops_details())
    if batch == 1:
        interpreter.allocate_tensors()
    else:
        _allocate_for(interpreter, batch)
    return InterpreterModel(interpreter, nodes)


def read_flatbuffer(module: Any, path: str) -> Flatbuffer:
    """Return what a file says of itself, without making it ready to run; raises as the ``Interpreter`` does."""
    resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = module.Interpreter(model_path=path, num_threads=1, experimental_op_resolver_type=resolver)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    return Flatbuffer(
        inputs=tuple(tensor(details) for details in inputs),
        outputs=tuple(tensor(details) for details in outputs),
        input_indices=tuple(details["index"] for details in inputs),
        output_indices=tuple(details["index"] for details in outputs),
        operators=tuple(node["op_name"] for node in interpreter._get_ops_details()),
    )


def probe(interpreter_class: Any) -> None:
    """Raise unless a model can be opened and run.

    Importing proves nothing, nor does the refusal of a file that is none: with numpy 2, tflite-runtime 2.14 does both
    and then fails at every real model.
    """
    interpreter = interpreter_class(model_content=_IDENTITY)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, np.ones(1, np.float32))
    interpreter.invoke()
    if interpreter.get_tensor(0) != 1:
        raise RuntimeError("the runtime changes a number that it was to pass through")


def tensor(details: dict[str, Any]) -> Tensor:
    """Return what an ``Interpreter`` says of a tensor."""
    scale, zero_point = details["quantization"]
    shape = tuple(int(size) for size in details["shape"])
    return Tensor(details["name"], shape, details["dtype"].__name__, float(scale), int(zero_point))


def resized(shape: tuple[int, ...], batch: int, name: str) -> tuple[int, ...]:
    """Return an input's shape with ``batch`` samples.

    Raises:
        BatchRefused: if it has no dimension.
    """
    if not shape:
        raise BatchRefused(f'a batch of {batch} is not possible: input "{name}" is a single number')
    return (batch, *shape[1:])


def check_batched(outputs: tuple[Tensor, ...], batch: int) -> None:
    """Raise BatchRefused unless every output has ``batch`` rows.

    A graph may take the larger input and yet answer for one sample: a RESHAPE to [1, -1] puts all of them in one row.
    """
    for output in outputs:
        if output.shape[:1] != (batch,):
            shape = list(output.shape)
            raise BatchRefused(
                f'a batch of {batch} is not possible: output "{output.name}" has the shape {shape} for it; '
                f"the model's graph fixes the batch"
            )


def _allocate_for(interpreter: Any, batch: int) -> None:
    for details in interpreter.get_input_details():
        shape = resized(tuple(int(size) for size in details["shape"]), batch, details["name"])
        interpreter.resize_tensor_input(details["index"], shape)
    try:
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BatchRefused(
            f"a batch of {batch} is not possible: the model's graph fixes another; the runtime says: {reason}"
        ) from error
    check_batched(tuple(tensor(details) for details in interpreter.get_output_details()), batch)
