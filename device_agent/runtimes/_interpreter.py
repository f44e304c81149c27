"""What LiteRT and tflite-runtime have in common: the ``Interpreter`` class and its traps."""

from __future__ import annotations

from base64 import b85decode
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.runtimes import Operator, Tensor

# The smallest model: one float32 tensor [1], its input and its output, and no operator. Made with the flatbuffer schema
# in ai_edge_litert.schema_py_generated.
_IDENTITY = b85decode(
    "7ytkOR7OlQ000gE6aWwa3;+lK000C44gdfE5C8xG8~^|Sga7~l0{{R30RR912mk;81ONm81ONa40RR915C8xG3;+}W5C9AS2mk~C3;+NC5C8xG5C8"
    "xG6aWAK7ytkO000000RR91000000RR91000000RR915C8xG3;+xO2mk;8000C43;+NC2mk;83;+NC00000000000RR910RR9100000"
)


class InterpreterModel:
    """A model behind a TFLite ``Interpreter``; the tensors' indices are looked up once, since that takes 10 µs."""

    def __init__(self, interpreter: Any) -> None:
        interpreter.allocate_tensors()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs = tuple(_tensor(details) for details in inputs)
        self.outputs = tuple(_tensor(details) for details in outputs)
        self.invoke = interpreter.invoke
        self._interpreter = interpreter
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
        """Return the operators of the model."""
        return ()


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


def _tensor(details: dict[str, Any]) -> Tensor:
    scale, zero_point = details["quantization"]
    shape = tuple(int(size) for size in details["shape"])
    return Tensor(details["name"], shape, details["dtype"].__name__, float(scale), int(zero_point))
