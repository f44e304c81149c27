"""Makes tiny ONNX models by hand, without a framework that exports: ``python tiny_onnx.py FOLDER [CONVERTED]``.

``images.onnx`` is the trained ``keras3.keras`` of the folder, with channels first. With ``CONVERTED`` every small graph
is converted too, and what became of it is printed as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

RANDOM = np.random.default_rng(0)
IMAGE, SERIES, FLAT = (3, 8, 8), (4, 10), (6,)


class Graph:
    """Nodes one after another, each fed by the last, with weights given as arrays."""

    def __init__(self, name: str, shape: Sequence[int | str], opset: int = 17) -> None:
        self.name, self.shape, self.opset, self.last = name, shape, opset, "x"
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, kind: str, *weights: Any, source: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node and return the name of its output; ``weights`` are arrays or names of outputs."""
        inputs = list(source or [self.last])
        for weight in weights:
            inputs.append(f"w{len(self.weights)}")
            self.weights.append(numpy_helper.from_array(np.asarray(weight), inputs[-1]))
        self.last = f"/{kind}_{len(self.nodes)}/out:0"
        name = f"/block.{len(self.nodes)}/{kind}"
        self.nodes.append(helper.make_node(kind, inputs, [self.last], name=name, **attributes))
        return self.last

    def write(self, folder: Path, more_inputs: Sequence[str] = (), rank: int = 2) -> None:
        """Write ``NAME.onnx``; its output has ``rank`` dimensions."""
        value = helper.make_tensor_value_info
        inputs = [value("x", TensorProto.FLOAT, self.shape), *(value(n, TensorProto.FLOAT, [1]) for n in more_inputs)]
        outputs = [value(self.last, TensorProto.FLOAT, [f"size_{axis}" for axis in range(rank)])]
        graph = helper.make_graph(self.nodes, self.name, inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)
        checker.check_model(model)
        save(model, folder / f"{self.name}.onnx")


def random(*shape: int) -> Any:
    """Return weights that are no larger than they need be."""
    return (RANDOM.normal(size=shape) * 0.4).astype(np.float32)


def images(folder: Path) -> None:
    """Write the trained network with channels first, and the samples likewise."""
    import keras

    weights = keras.models.load_model(folder / "keras3.keras").get_weights()
    first, gamma, beta, mean, variance, second, second_bias, dense, dense_bias = weights
    graph = Graph("images", ["batch", 1, 12, 12])
    graph.add("Conv", first.transpose(3, 2, 0, 1), kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    graph.add("BatchNormalization", gamma, beta, mean, variance, epsilon=1e-3)
    left = graph.add("Relu")
    right = graph.add("Conv", second.transpose(3, 2, 0, 1), second_bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    graph.add("Add", source=[left, right])
    graph.add("Flatten")
    graph.add("Gemm", dense.reshape(6, 6, 8, 4).transpose(2, 0, 1, 3).reshape(288, 4), dense_bias)
    graph.add("Softmax", axis=1)
    graph.write(folder)
    given = dict(np.load(folder / "data.npz"))
    np.savez(folder / "nchw.npz", **{k: v.transpose(0, 3, 1, 2) if k[0] == "x" else v for k, v in given.items()})


def small(folder: Path) -> list[str]:
    """Write a graph for each kind of operator, and return their names."""
    graphs = [
        _mobile(), _dense_norm(), _series(), _joined(), _scaled(), _shaped(), _volume(), _open(),
    ]  # fmt: skip
    for graph in graphs:
        graph.write(folder)
    return [graph.name for graph in graphs]


def _mobile() -> Graph:
    graph = Graph("mobile", [1, *IMAGE])
    graph.add("Conv", random(6, 3, 1, 1), random(6), kernel_shape=[1, 1])
    graph.add("Clip", np.float32(0), np.float32(6))
    graph.add("Conv", random(6, 1, 3, 3), kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=6)
    kept = graph.add("LeakyRelu", alpha=0.1)
    graph.add("GlobalAveragePool")
    graph.add("Conv", random(6, 6, 1, 1), random(6), kernel_shape=[1, 1])
    graph.add("Sigmoid")
    graph.add("Mul", source=[kept, graph.last])
    graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    graph.add("ReduceMean", axes=[2, 3], keepdims=0)
    graph.add("Gemm", random(4, 6), random(4), transB=1)
    return graph


def _dense_norm() -> Graph:
    graph = Graph("dense", ["n", *FLAT])
    kept = graph.add("MatMul", random(6, 5))
    graph.add("BatchNormalization", *(np.abs(random(5)) + 0.5 for _ in range(4)))
    graph.add("Concat", source=[graph.last, kept], axis=1)
    graph.add("PRelu", np.abs(random(10)))
    graph.add("Softmax")
    return graph


def _series() -> Graph:
    graph = Graph("series", ["n", *SERIES])
    graph.add("Conv", random(5, 4, 3), random(5), kernel_shape=[3], pads=[1, 1], strides=[2])
    graph.add("Relu")
    graph.add("Flatten")
    graph.add("Gemm", random(25, 3), random(3))
    return graph


def _joined() -> Graph:
    graph = Graph("joined", ["n", *IMAGE])
    left = graph.add("Conv", random(4, 3, 3, 3), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    right = graph.add("PRelu", np.abs(random(3, 1, 1)), source=["x"])
    graph.add("Concat", source=[left, right], axis=1)
    graph.add("BatchNormalization", *(np.abs(random(7)) + 0.5 for _ in range(4)))
    graph.add("Resize", np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32))
    graph.add("Softmax", axis=1)
    graph.add("Reshape", np.array([-1, 7 * 256]))
    graph.add("Gemm", random(7 * 256, 3), random(3))
    return graph


def _scaled() -> Graph:
    graph = Graph("scaled", ["n", *IMAGE])
    graph.add("Mul", np.abs(random(1, 3, 1, 1)))
    graph.add("Conv", random(4, 3, 3, 3), kernel_shape=[3, 3])
    graph.add("Flatten")
    graph.add("Gemm", random(144, 3), random(3))
    return graph


def _shaped() -> Graph:
    graph = Graph("shaped", ["n", *IMAGE])
    graph.add("Transpose", perm=[0, 2, 3, 1])
    graph.add("Reshape", np.array([-1, 8, 24]))
    graph.add("Flatten")
    graph.add("Gemm", random(192, 3), random(3))
    return graph


def _volume() -> Graph:
    graph = Graph("volume", ["n", 2, 4, 4, 4])
    graph.add("Conv", random(3, 2, 2, 2, 2), random(3), kernel_shape=[2, 2, 2], strides=[1, 1, 1])
    graph.add("Relu")
    graph.add("Flatten")
    graph.add("Gemm", random(81, 3), random(3))
    return graph


def _open() -> Graph:
    graph = Graph("open", ["n", 3, "height", "width"])
    graph.add("Conv", random(4, 3, 3, 3), random(4), kernel_shape=[3, 3], dilations=[2, 2])
    graph.add("GlobalMaxPool")
    graph.add("Flatten")
    return graph


def refused(folder: Path) -> None:
    """Write graphs that cannot be used."""
    graph = Graph("unknown_operators", ["n", 1, 12, 12])
    graph.add("HardSwish")
    graph.add("Gelu")
    graph.opset = 20
    graph.write(folder, rank=4)
    graph = Graph("two_inputs", ["n", *FLAT])
    graph.add("Add", source=["x", "y"])
    graph.write(folder, more_inputs=["y"])
    graph = Graph("attention", ["n", 1, 12, 12])
    graph.add("MatMul", source=["x", "x"])
    graph.write(folder, rank=4)
    # The converter counts the padding where it should not: the comparison finds it.
    graph = Graph("wrong", ["n", 1, 12, 12])
    graph.add("AveragePool", kernel_shape=[3, 3], strides=[3, 3], pads=[1, 1, 1, 1], count_include_pad=0)
    graph.add("Flatten")
    graph.write(folder)
    (folder / "rubbish.onnx").write_bytes(b"rubbish" * 9)


def converted(folder: Path, name: str) -> dict[str, Any]:
    """Return what became of a graph: the facts, and the layers of a Keras model."""
    import keras
    import onnx

    from pipeline.model_formats.onnx_model import convert
    from pipeline.training.training_data import TrainingData

    shape = onnx.load(folder / f"{name}.onnx").graph.input[0].type.tensor_type.shape.dim[1:]
    np.save(folder / "x.npy", RANDOM.random([40, *(size.dim_value or 9 for size in shape)], dtype=np.float32))
    data = TrainingData(folder / "x.npy", None, 1.0, 0.0, 0, "litert")
    target = folder / f"{name}_converted"
    target.mkdir()
    facts = convert(folder / f"{name}.onnx", data, target, lambda fraction, text: None)
    made = keras.models.load_model(target / facts["file"]) if facts["format"] == "keras3" else None
    layers = [] if made is None else [f"{layer.name} {type(layer).__name__}" for layer in made.layers]
    return {**facts, "layers": layers, "shape": None if made is None else made.input_shape[1:]}


def main(folder: Path, convert_all: bool) -> None:
    """Write the models and convert the small ones if asked to."""
    images(folder)
    refused(folder)
    names = small(folder)
    if convert_all:
        print(json.dumps({name: converted(folder, name) for name in names}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), len(sys.argv) > 2)
