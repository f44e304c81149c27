"""Makes device_agent/golden: ``python tests/make_golden.py``, with the host's Python.

A tiny int8 network with the operators that most models have, put together without TensorFlow, and what each runtime
that is installed on boards makes of eight fixed inputs. The numbers are to be the same on every board. They were, in
QEMU: LiteRT 2.3.0 as a Nehalem, a Haswell, a Cortex-A53, A72 and A76; tflite-runtime 2.14.0 as A53 and A72, and on
armv7l with the numpy 1.24.2 of Debian 12.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from pipeline.devices.provisioning.wheels import all_locks

GOLDEN = Path(__file__).parents[1] / "device_agent" / "golden"
INPUTS = 8

_OUTPUTS = """
import json, sys
import numpy as np
from device_agent import runtimes
path, name, inputs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = runtimes.find(name).open_model(path, 1, "xnnpack", 1)
outputs = []
for values in inputs:
    model.set_input(0, np.array(values, np.int8).reshape(model.inputs[0].shape))
    model.invoke()
    outputs.append(model.get_output(0).reshape(-1).tolist())
print(json.dumps({"version": runtimes.find(name).version(), "outputs": outputs}))
"""


def main() -> None:
    """Write the model, and the numbers of each runtime."""
    GOLDEN.mkdir(exist_ok=True)
    model = GOLDEN / "golden.tflite"
    model.write_bytes(network())
    inputs = fixed_inputs()
    outputs = {name: outputs_of(model, name, inputs) for name in sorted(locked_runtimes())}
    lines = [f'"inputs": {json.dumps(inputs)}', f'"outputs": {json.dumps(outputs)}']
    (GOLDEN / "golden.json").write_text("{" + ",\n".join(lines) + "}\n")


def fixed_inputs() -> list[list[int]]:
    """Return inputs of int8 values, flat."""
    values: list[list[int]] = np.random.default_rng(20).integers(-128, 128, (INPUTS, 8 * 8 * 3)).tolist()
    return values


def locked_runtimes() -> set[str]:
    """Return each runtime with each of its versions that the locks for boards name: ``litert 2.3.0``."""
    return {f"{lock.runtime} {lock.wheels[0].version}" for lock in all_locks()}


def outputs_of(model: Path, runtime: str, inputs: list[list[int]]) -> list[list[int]]:
    """Return what a version of a runtime makes of the inputs, with its default delegate.

    Versions that differ give other numbers: of XNNPACK, a step or two.
    """
    name, version = runtime.split()
    python = Path(sys.prefix).parent / name / "bin" / "python"
    package = {"litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}[name]
    with tempfile.TemporaryDirectory() as folder:
        pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        subprocess.run([*pip, f"{package}=={version}"], check=True)
        environment = {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
        words = [str(python), "-c", _OUTPUTS, str(model), name, json.dumps(inputs)]
        answer = subprocess.run(words, check=True, capture_output=True, env=environment).stdout
    found = json.loads(answer)
    assert found["version"] == version
    outputs: list[list[int]] = found["outputs"]
    return outputs


def network() -> bytes:
    """Return the network: convolutions of three kinds, an addition, pooling, a mean and a dense layer."""
    random, build = np.random.default_rng(10), Builder()

    def weights(*shape: int) -> Any:
        return random.integers(-127, 128, shape).astype(np.int8)

    def scales(count: int) -> list[float]:
        return random.uniform(0.001, 0.004, count).astype(np.float32).tolist()

    image = build.tensor([1, 8, 8, 3], [1 / 127], -1)
    first = build.convolved(image, weights(8, 3, 3, 3), scales(8), [1, 8, 8, 8], 6 / 255, -128, schema.Conv2DOptionsT())
    deep = build.convolved(
        first, weights(1, 3, 3, 8), scales(8), [1, 8, 8, 8], 0.02, -128, schema.DepthwiseConv2DOptionsT()
    )
    point = build.convolved(deep, weights(8, 1, 1, 8), scales(8), [1, 8, 8, 8], 0.02, 3, schema.Conv2DOptionsT())
    added = build.tensor([1, 8, 8, 8], [0.03], -20)
    build.operator("ADD", 2, [first, point], added, schema.AddOptionsT())
    pooling = schema.Pool2DOptionsT()
    pooling.strideW = pooling.strideH = pooling.filterWidth = pooling.filterHeight = 2
    pooling.padding = schema.Padding.VALID
    pooled = build.tensor([1, 4, 4, 8], [0.03], -20)
    build.operator("MAX_POOL_2D", 2, [added], pooled, pooling)
    axes = build.constant(np.array([1, 2], np.int32))
    mean = build.tensor([1, 8], [0.02], 0)
    build.operator("MEAN", 2, [pooled, axes], mean, schema.ReducerOptionsT())
    dense = build.constant(weights(10, 8), [0.01])
    output = build.tensor([1, 10], [0.015], 5)
    build.operator("FULLY_CONNECTED", 4, [mean, dense, -1], output, schema.FullyConnectedOptionsT())
    return build.finished(image, output)


class Builder:
    """A flatbuffer of int8 operators, one behind the other."""

    def __init__(self) -> None:
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._model = schema.ModelT()
        self._model.version, self._model.operatorCodes, self._model.buffers = 3, [], [schema.BufferT()]
        self._scales: dict[int, float] = {}

    def tensor(self, shape: Sequence[int], scales: Sequence[float], zero_point: int) -> int:
        """Add an int8 tensor that is computed, and return its place."""
        self._scales[len(self._graph.tensors)] = scales[0]
        return self._add(shape, schema.TensorType.INT8, 0, scales, zero_point, 0)

    def constant(self, values: Any, scales: Sequence[float] = (), axis: int = 0) -> int:
        """Add a tensor that is there from the start; its zero point is 0."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        kind = schema.TensorType.INT8 if values.dtype == np.int8 else schema.TensorType.INT32
        return self._add(values.shape, kind, len(self._model.buffers) - 1, scales, 0, axis)

    def convolved(
        self,
        source: int,
        weights: Any,
        scales: list[float],
        shape: list[int],
        scale: float,
        zero_point: int,
        options: Any,
    ) -> int:
        """Add a convolution with a scale for each channel, a bias and, where the zero point is the lowest, a ReLU."""
        is_deep = isinstance(options, schema.DepthwiseConv2DOptionsT)
        filters = self.constant(weights, scales, 3 if is_deep else 0)
        biases = (np.arange(len(scales)) * 150 - 500).astype(np.int32)
        bias = self.constant(biases, [self._scales[source] * each for each in scales])
        target = self.tensor(shape, [scale], zero_point)
        options.padding, options.strideW, options.strideH = schema.Padding.SAME, 1, 1
        if is_deep:
            options.depthMultiplier = 1
        if zero_point == -128:
            options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        self.operator("DEPTHWISE_CONV_2D" if is_deep else "CONV_2D", 3, [source, filters, bias], target, options)
        return target

    def operator(self, name: str, version: int, sources: list[int], target: int, options: Any) -> None:
        """Add an operator."""
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = version
        self._model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes) - 1
        operator.inputs, operator.outputs, operator.builtinOptions = sources, [target], options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._graph.operators.append(operator)

    def finished(self, source: int, target: int) -> bytes:
        """Return the whole."""
        self._graph.inputs, self._graph.outputs = [source], [target]
        self._model.subgraphs = [self._graph]
        builder = flatbuffers.Builder(0)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _add(
        self, shape: Sequence[int], kind: int, buffer: int, scales: Sequence[float], zero_point: int, axis: int
    ) -> int:
        tensor, quantization = schema.TensorT(), schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = list(scales), [zero_point] * len(scales)
        quantization.quantizedDimension = axis
        tensor.shape, tensor.type, tensor.buffer, tensor.quantization = list(shape), kind, buffer, quantization
        tensor.name = f"tensor{len(self._graph.tensors)}"
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1


if __name__ == "__main__":
    main()
