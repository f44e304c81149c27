"""How some ONNX operators become ordinary layers of Keras, and how a model's channels are moved last.

The package onnx2keras writes functions where these stand, and functions cannot be compressed or saved as layers.
A converter is given what that package gives its own: the node, its attributes, the tensors by name, a table of
functions, the name that the node's output has, and the name for the layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Converter = Callable[..., None]

_POINTWISE = (
    "Activation",
    "Add",
    "Dropout",
    "ELU",
    "LeakyReLU",
    "Maximum",
    "Minimum",
    "Multiply",
    "ReLU",
    "Subtract",
)
_WITH_AXIS = ("BatchNormalization", "Concatenate", "GroupNormalization", "Softmax")


def _global_pooling(kind: str) -> Converter:
    def convert(node: Any, params: Any, layers: Any, functions: Any, node_name: str, keras_name: str) -> None:
        layers[node_name] = _pooled(kind, layers[node.input[0]], keras_name, keepdims=True)

    return convert


def _reduce_mean(node: Any, params: Any, layers: Any, functions: Any, node_name: str, keras_name: str) -> None:
    from onnx2keras.operation_layers import convert_reduce_mean

    source = layers[node.input[0]]
    axes = params["axes"] if "axes" in params else layers[node.input[1]] if len(node.input) > 1 else []
    keepdims = params.setdefault("keepdims", 1)
    if len(source.shape) == 4 and sorted(int(axis) % 4 for axis in axes) == [2, 3]:
        layers[node_name] = _pooled("Average", source, keras_name, keepdims=bool(keepdims))
    else:
        convert_reduce_mean(node, params, layers, functions, node_name, keras_name)


def _pooled(kind: str, source: Any, name: str, keepdims: bool) -> Any:
    import keras

    dimensions = len(source.shape) - 2
    pooling = getattr(keras.layers, f"Global{kind}Pooling{dimensions}D")
    return pooling(data_format="channels_first", keepdims=keepdims, name=name)(source)


def _softmax(node: Any, params: Any, layers: Any, functions: Any, node_name: str, keras_name: str) -> None:
    import keras

    source = layers[node.input[0]]
    axis = params.get("axis", -1) % len(source.shape)
    last = axis == len(source.shape) - 1
    layer = keras.layers.Activation("softmax", name=keras_name) if last else keras.layers.Softmax(axis, name=keras_name)
    layers[node_name] = layer(source)


def _flatten(node: Any, params: Any, layers: Any, functions: Any, node_name: str, keras_name: str) -> None:
    import keras

    if params.get("axis", 1) != 1:
        raise NotImplementedError(f"axis is {params['axis']}; expected 1")
    layers[node_name] = keras.layers.Flatten(name=keras_name, data_format="channels_last")(layers[node.input[0]])


def _mat_mul(node: Any, params: Any, layers: Any, functions: Any, node_name: str, keras_name: str) -> None:
    from onnx2keras.linear_layers import convert_gemm

    if not isinstance(layers[node.input[1]], np.ndarray):
        raise NotImplementedError("multiplies two tensors; expected a tensor and weights")
    convert_gemm(node, params, layers, functions, node_name, keras_name)


def _gemm(node: Any, params: Any, layers: Any, functions: Any, node_name: str, keras_name: str) -> None:
    scaled = {name: params.get(name, 1.0) for name in ("alpha", "beta") if params.get(name, 1.0) != 1.0}
    if scaled or params.get("transA"):
        raise NotImplementedError(f"{scaled or 'transA is 1'}; expected a plain product with weights and a bias")
    _mat_mul(node, params, layers, functions, node_name, keras_name)


def _convolution(node: Any, params: Any, layers: Any, functions: Any, node_name: str, keras_name: str) -> None:
    from onnx2keras.convolution_layers import convert_conv

    if params.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise NotImplementedError(f"auto_pad is {params['auto_pad'].decode()}; expected pads")
    kernel = layers[node.input[1]]
    if kernel.ndim == 3:
        layers[node_name] = _convolved_1d(node, params, layers, keras_name)
    else:
        convert_conv(node, params, layers, functions, node_name, keras_name)


def _convolved_1d(node: Any, params: Any, layers: Any, name: str) -> Any:
    """Return a Conv1D between two that turn [samples, channels, steps] around: Keras computes with channels last."""
    import keras

    kernel, *bias = (layers[each] for each in node.input[1:])
    convolution = keras.layers.Conv1D(
        filters=kernel.shape[0],
        kernel_size=kernel.shape[2],
        strides=params.get("strides", [1])[0],
        dilation_rate=params.get("dilations", [1])[0],
        groups=params.get("group", 1),
        use_bias=bool(bias),
        data_format="channels_last",
        name=name,
    )
    x = keras.layers.Permute((2, 1), name=f"{name}_steps_first")(layers[node.input[0]])
    pads = params.get("pads", [0, 0])
    if any(pads):
        x = keras.layers.ZeroPadding1D(tuple(pads), name=f"{name}_pad", data_format="channels_last")(x)
    x = convolution(x)
    convolution.set_weights([kernel.transpose(2, 1, 0), *bias])
    return keras.layers.Permute((2, 1), name=f"{name}_channels_first")(x)


CONVERTERS: dict[str, Converter] = {
    "Conv": _convolution,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pooling("Average"),
    "GlobalMaxPool": _global_pooling("Max"),
    "MatMul": _mat_mul,
    "ReduceMean": _reduce_mean,
    "Softmax": _softmax,
}


def channels_last(model: Any) -> Any:
    """Return a Keras 3 model of one input and one output with channels last in tensors of four or more dimensions.

    TensorFlow's CPU kernels, its converter and every board compute so. A layer whose meaning depends on the order, and
    that cannot be told of the other one, is put between two that turn its tensors around.
    """
    import keras

    keras.backend.set_image_data_format("channels_last")
    originals: dict[str, Any] = {}

    def cloned(layer: Any) -> Any:
        originals[layer.name] = layer
        return _told(layer)

    def called(layer: Any, *arguments: Any, **keywords: Any) -> Any:
        if _takes_channels_last(originals[layer.name]):
            return layer(*arguments, **keywords)
        outputs = layer(*_turned(arguments, f"{layer.name}_before", first=True), **keywords)
        return _turned(outputs, f"{layer.name}_after", first=False)

    inputs = [keras.Input(_moved(tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name) for tensor in model.inputs]
    result = keras.models.clone_model(model, input_tensors=inputs, clone_function=cloned, call_function=called)
    for name, layer in originals.items():
        if layer.weights:
            result.get_layer(name).set_weights(_weights(layer))
    return keras.Model(result.inputs[0], result.outputs[0], name="onnx")


def _moved(shape: Any) -> tuple[int, ...]:
    return tuple(shape) if len(shape) < 3 else (*shape[1:], shape[0])


def _rank(layer: Any) -> int:
    import keras

    return max(len(tensor.shape) for tensor in keras.tree.flatten(layer.input))


def _takes_channels_last(layer: Any) -> bool:
    """Whether a layer, told so, does the same with channels last."""
    import keras

    ranks = {len(tensor.shape) for tensor in keras.tree.flatten([layer.input, layer.output])}
    if max(ranks) < 4:
        return True
    kind = type(layer).__name__
    if kind == "Activation":
        return bool(layer.get_config()["activation"] != "softmax")
    if kind in ("Flatten", "Reshape"):
        # Of one place only, the channels are in the same order both ways.
        return len(layer.output.shape) == 2 and all(size == 1 for size in layer.input.shape[2:])
    if kind in ("PReLU", *_POINTWISE, *_WITH_AXIS):
        return len(ranks) == 1
    return "data_format" in layer.get_config()


def _told(layer: Any) -> Any:
    """Return a new layer, told that channels are last; the same one where nothing can be told."""
    import keras

    if isinstance(layer, keras.layers.Lambda):
        return layer
    config, rank = layer.get_config(), _rank(layer)
    if rank > 3 and _takes_channels_last(layer):
        if "data_format" in config:
            config["data_format"] = "channels_last"
        if type(layer).__name__ in _WITH_AXIS:
            config["axis"] = _moved_axis(config["axis"], rank)
        if config.get("shared_axes"):
            config["shared_axes"] = [_moved_axis(axis, rank) for axis in config["shared_axes"]]
    return type(layer).from_config(config)


def _moved_axis(axis: Any, rank: int) -> int:
    """Return where an axis of [samples, channels, …] is in [samples, …, channels]."""
    number = int(axis[0] if isinstance(axis, list | tuple) else axis) % rank
    return {0: 0, 1: rank - 1}.get(number, number - 1)


def _weights(layer: Any) -> list[Any]:
    weights: list[Any] = layer.get_weights()
    if type(layer).__name__ == "PReLU" and _rank(layer) > 3:
        return [np.moveaxis(weights[0], 0, -1)]
    return weights


def _turned(tensors: Any, name: str, first: bool) -> Any:
    """Return tensors of four or more dimensions with their channels ``first``, or last; others as they are."""
    import keras

    turned = []
    for index, tensor in enumerate(keras.tree.flatten(tensors)):
        rank = len(tensor.shape)
        if rank > 3:
            order = (rank - 1, *range(1, rank - 1)) if first else (*range(2, rank), 1)
            tensor = keras.layers.Permute(order, name=f"{name}_{index}")(tensor)
        turned.append(tensor)
    return keras.tree.pack_sequence_as(tensors, turned)
