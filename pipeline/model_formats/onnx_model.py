"""From an ONNX file to a Keras 3 model with the same outputs, by the package onnx2keras.

Runs in a child process; needs the packages of the extra ``onnx``. Every conversion is checked against ONNX Runtime.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError, ModelError
from pipeline.model_formats.model_files import first_line
from pipeline.model_formats.onnx_layers import CONVERTERS, channels_last
from pipeline.training.training_data import TrainingData

COMPARED_SAMPLES = 32
TOLERANCE = 1e-3
"""The largest difference of an output, as a share of the largest output, that a conversion may make."""

Tell = Callable[[float, str], None]


def convert(source: Path, data: TrainingData, folder: Path, tell: Tell) -> dict[str, Any]:
    """Write ``source`` as ``model.keras``, or as ``saved_model`` when a part of it is no layer of Keras.

    Args:
        source: an ONNX file.
        data: samples as the ONNX model takes them; they give the sizes that it leaves open, and the outputs on some
            of them are compared.
        folder: where it goes.
        tell: told how far it is.

    Returns:
        ``file`` and ``format``; ``moved``, whether the model takes channels last where the ONNX model takes them
        first; ``functions``, the parts that are no layers.

    Raises:
        ModelError: if it cannot be read or converted, or gives other outputs; the message names the operator.
        DataError: if the samples are not what it takes.
    """
    import onnx

    model = read(source)
    tensor = _input_of(model)
    sizes = _sizes(tensor, tuple(data.inputs([0]).shape[1:]))
    data = _as_taken(data, onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type))
    _name_by_nodes(model.graph)
    keras_model = channels_last(_converted(model, sizes))
    tell(0.6, "comparing with ONNX Runtime")
    _compare(source, keras_model, data.inputs(data.fixed_indices(COMPARED_SAMPLES)))
    return {**_saved(keras_model, folder), "moved": len(sizes) > 2}


def read(source: Path) -> Any:
    """Return the checked ``onnx.ModelProto`` of a file: one input, one output, known operators, weights inside.

    Raises:
        ModelError: with the reason.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(source, load_external_data=False)
        outside = [each.name for each in model.graph.initializer if onnx.external_data_helper.uses_external_data(each)]
        if outside:
            raise ModelError(
                f"keeps weights in another file ({outside[0]} and {len(outside) - 1} more); save it as one"
            )
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ModelError(f"is not a valid ONNX model: {first_line(error)}") from error
    for what, names in (("inputs", _inputs(model)), ("outputs", [end.name for end in model.graph.output])):
        if len(names) != 1:
            raise ModelError(f"has {len(names)} {what} ({', '.join(names) or 'none'}); expected one")
    _refuse_unknown(model.graph)
    return model


def _inputs(model: Any) -> list[str]:
    weights = {weight.name for weight in model.graph.initializer}
    return [tensor.name for tensor in model.graph.input if tensor.name not in weights]


def _input_of(model: Any) -> Any:
    (name,) = _inputs(model)
    return next(tensor for tensor in model.graph.input if tensor.name == name)


def _refuse_unknown(graph: Any) -> None:
    from onnx2keras.layers import AVAILABLE_CONVERTERS

    known = {*AVAILABLE_CONVERTERS, *CONVERTERS}
    unknown: dict[str, list[str]] = {}
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in known:
            kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            unknown.setdefault(kind, []).append(node.name or node.output[0])
    if unknown:
        named = "; ".join(f"{kind} ({', '.join(nodes[:3])})" for kind, nodes in unknown.items())
        raise ModelError(f"has operators that cannot be converted: {named}")


def _sizes(tensor: Any, sample: tuple[int, ...]) -> list[int]:
    """Return the shape of one sample; sizes that the model leaves open are the samples'."""
    asked = [dimension.dim_value for dimension in tensor.type.tensor_type.shape.dim][1:]
    if len(asked) != len(sample) or any(size not in (0, real) for size, real in zip(asked, sample, strict=True)):
        wanted = tuple(size or None for size in asked)
        raise DataError(f"takes {wanted} for one sample, in ONNX's order; the samples have shape {sample}")
    return list(sample)


def _as_taken(data: TrainingData, dtype: Any) -> TrainingData:
    return replace(data, dtype=np.dtype(dtype).name)


def _name_by_nodes(graph: Any) -> None:
    """Call what each node gives by the node's name: these become the layers' names, which patterns are given for."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for count, node in enumerate(graph.node):
        for index, output in enumerate(node.output):
            wished = re.sub(r"[^A-Za-z0-9]+", "_", node.name).strip("_") or f"{node.op_type.lower()}_{count}"
            wished = wished if wished[0].isalpha() else f"n{wished}"
            name = wished if index == 0 and wished not in taken else f"{wished}_{count}_{index}"
            taken.add(name)
            names[output] = name
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(end, end) for end in ends]
    for tensor in graph.output:
        tensor.name = names.get(tensor.name, tensor.name)


def _converted(model: Any, sizes: list[int]) -> Any:
    """Return the Keras model in ONNX's own order of dimensions."""
    from onnx2keras import onnx_to_keras
    from onnx2keras.layers import AVAILABLE_CONVERTERS

    for name, converter in {**AVAILABLE_CONVERTERS, **CONVERTERS}.items():
        AVAILABLE_CONVERTERS[name] = _naming(converter)
    return onnx_to_keras(model, _inputs(model), input_shapes=[sizes], verbose=False)


def _naming(converter: Callable[..., None]) -> Callable[..., None]:
    """Return a converter of nodes whose errors name the node."""

    def named(node: Any, *arguments: Any) -> None:
        try:
            converter(node, *arguments)
        except Exception as error:  # whatever the converter of one operator raises
            where = f"operator {node.op_type} ({node.name or node.output[0]})"
            raise ModelError(f"{where} cannot be converted: {first_line(error)}") from error

    return named


def _compare(source: Path, keras_model: Any, inputs: npt.NDArray[Any]) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    # One at a time: the model may have been made for just one.
    expected = np.concatenate([session.run(None, {name: sample[np.newaxis]})[0] for sample in inputs])
    moved = np.moveaxis(inputs, 1, -1) if inputs.ndim > 3 else inputs
    found = np.concatenate([np.asarray(keras_model(sample[np.newaxis], training=False)) for sample in moved])
    found = np.moveaxis(found, -1, 1) if found.ndim > 3 else found
    if expected.shape != found.shape:
        raise ModelError(f"gives outputs {found.shape} once converted, and {expected.shape} in ONNX Runtime")
    largest = float(np.abs(expected).max())
    difference = float(np.abs(expected - found).max())
    if not difference <= TOLERANCE * largest:
        raise ModelError(
            f"gives other outputs once converted than in ONNX Runtime, on {len(inputs)} samples: largest difference "
            f"{difference:.3g}, where the largest output is {largest:.3g}; expected {TOLERANCE:g} of it at most"
        )


def _saved(keras_model: Any, folder: Path) -> dict[str, Any]:
    import keras

    functions = [layer.name for layer in keras_model.layers if isinstance(layer, keras.layers.Lambda)]
    if functions:
        keras_model.export(folder / "saved_model", verbose=False)
        return {"file": "saved_model", "format": "saved_model", "functions": functions}
    keras_model.save(folder / "model.keras")
    return {"file": "model.keras", "format": "keras3", "functions": []}
