"""What LiteRT and tflite-runtime have in common: the ``Interpreter`` class and its traps."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from device_agent.runtimes import Tensor


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


def probe(interpreter_class: Any) -> None:
    """Raise unless the native part works, which importing it does not prove: with numpy 2, tflite-runtime 2.14 is
    imported without an error and then fails at ``Interpreter()`` with a SystemError."""
    try:
        interpreter_class(model_content=b"not a flatbuffer")
    except ValueError:
        return
    raise RuntimeError("the interpreter opened a model that is none")


def _tensor(details: dict[str, Any]) -> Tensor:
    scale, zero_point = details["quantization"]
    shape = tuple(int(size) for size in details["shape"])
    return Tensor(details["name"], shape, details["dtype"].__name__, float(scale), int(zero_point))
