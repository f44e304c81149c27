"""What each kind of tf_keras layer does with the channels that reach it; a kind without a rule keeps them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.compression._channels import ChannelNumbers, Ids, Role, Work

Shape = tuple[int | None, ...]

_ELEMENTWISE = {
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "mish", "sigmoid",
    "hard_sigmoid", "tanh", "softplus", "softsign", "exponential",
}  # fmt: skip


class NotUnderstood(Exception):
    """A layer, or how it is set up, has no rule; the text is the reason."""


@dataclass(frozen=True)
class Call:
    """One call of a layer: the channels and the shapes of its inputs, and the shapes of its outputs."""

    layer: Any
    inputs: list[Ids]
    shapes: list[Shape]
    output_shapes: list[Shape]


Rule = Callable[[ChannelNumbers, Call], tuple[Ids, Role]]


def rule_of(layer: Any) -> Rule:
    """Return the rule of a layer.

    Raises:
        NotUnderstood: when there is none.
    """
    kind = type(layer).__name__
    # A class of one's own computes who knows what, whatever it is called.
    if type(layer).__module__.startswith("tf_keras.") and kind in _RULES:
        return _RULES[kind]
    if hasattr(layer, "layers"):
        raise NotUnderstood("a nested model is left as it is")
    raise NotUnderstood(_MIXING.get(kind, "channel_pruning has no rule for it"))


def _pass(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    return call.inputs[0], Role(call.layer)


def _activation(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    if not _is_elementwise(call.layer):
        raise NotUnderstood(f"its activation {_activation_name(call.layer)} may compute over all channels")
    return _pass(numbers, call)


def _dropout(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    if call.layer.noise_shape is not None:
        raise NotUnderstood("it has a noise_shape")
    return _pass(numbers, call)


def _rescaling(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    if np.size(call.layer.scale) != 1 or np.size(call.layer.offset) != 1:
        raise NotUnderstood("it has a factor for each channel")
    return _pass(numbers, call)


def _prelu(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    ids, shape = call.inputs[0], call.layer.alpha.shape
    shared = shape[-1] != ids.size
    return ids, Role(call.layer, {} if shared else {"alpha": {len(shape) - 1: ids}})


def _batch_normalization(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    ids = call.inputs[0]
    if [axis % len(call.shapes[0]) for axis in call.layer.axis] != [len(call.shapes[0]) - 1]:
        raise NotUnderstood("it does not normalize the last axis")
    if call.layer.renorm:
        raise NotUnderstood("it has renorm")
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    present = {name: {0: ids} for name in names if getattr(call.layer, name) is not None}
    return ids, Role(call.layer, present)


def _convolution(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    layer, taken = call.layer, call.inputs[0]
    if layer.groups != 1:
        raise NotUnderstood("a grouped convolution is left as it is")
    transposed = type(layer).__name__.endswith("Transpose")
    made = _made(numbers, layer, layer.filters)
    inner, last = (made, taken) if transposed else (taken, made)
    axis = layer.rank + (0 if transposed else 1)
    # Each output position meets every weight; of a transposed one each input position does.
    positions = _positions(call.shapes[0] if transposed else call.output_shapes[0])
    role = Role(
        layer,
        _with_bias(layer, {"kernel": {layer.rank: inner, layer.rank + 1: last}}, made),
        reads={"kernel": 2 * layer.rank + 1 - axis},
        sizes={"filters": made},
        made=(made, "kernel", axis),
        work=[Work(_times(positions, *layer.kernel_size), (taken, made))],
    )
    return made, role


def _dense(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    layer, taken = call.layer, call.inputs[0]
    made = _made(numbers, layer, layer.units)
    role = Role(
        layer,
        _with_bias(layer, {"kernel": {0: taken, 1: made}}, made),
        reads={"kernel": 0},
        sizes={"units": made},
        made=(made, "kernel", 1),
        work=[Work(_positions(call.shapes[0]), (taken, made))],
    )
    return made, role


def _depthwise(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    layer, taken = call.layer, call.inputs[0]
    if not _is_elementwise(layer):
        raise NotUnderstood(f"its activation {_activation_name(layer)} may compute over all channels")
    passed = np.repeat(taken, layer.depth_multiplier)
    weights = _with_bias(layer, {"depthwise_kernel": {layer.rank: taken}}, passed)
    work = Work(_times(_positions(call.output_shapes[0]), *layer.kernel_size), (passed,))
    return passed, Role(layer, weights, work=[work])


def _separable(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    layer, taken = call.layer, call.inputs[0]
    rank, made = layer.rank, _made(numbers, layer, layer.filters)
    between = np.repeat(taken, layer.depth_multiplier)
    positions = _positions(call.output_shapes[0])
    kernels = {"depthwise_kernel": {rank: taken}, "pointwise_kernel": {rank: between, rank + 1: made}}
    role = Role(
        layer,
        _with_bias(layer, kernels, made),
        reads={"pointwise_kernel": rank},
        sizes={"filters": made},
        made=(made, "pointwise_kernel", rank + 1),
        work=[Work(_times(positions, *layer.kernel_size), (between,)), Work(positions, (between, made))],
    )
    return made, role


def _recurrent(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    layer, taken = call.layer, call.inputs[0]
    if len(call.inputs) != 1 or len(call.output_shapes) != 1:
        raise NotUnderstood("it is given a state, or gives one")
    reason = "its units stay; its kernel loses the rows of inputs that go"
    kernel, recurrent = layer.cell.kernel.shape, layer.cell.recurrent_kernel.shape
    steps = call.shapes[0][1]
    work = [Work(_times(steps, kernel[1]), (taken,)), Work(_times(steps, *recurrent))]
    role = Role(layer, {"cell.kernel": {0: taken}}, reads={"cell.kernel": 0}, work=work, kept=reason)
    return numbers.new(layer.units, f"they are made by {described(layer)}, whose units stay"), role


def _merge(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    """Unite the channels of tensors that are added and the like; one of a single channel meets all of the others."""
    widest = max(call.inputs, key=len)
    for ids in call.inputs:
        if ids.size == widest.size:
            numbers.unite(widest, ids)
        elif ids.size == 1:
            numbers.freeze(ids, f"it meets every channel in {described(call.layer)}")
        else:
            raise NotUnderstood(f"its inputs have {ids.size} and {widest.size} channels")
    return widest, Role(call.layer)


def _concatenate(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    if call.layer.axis % len(call.shapes[0]) == len(call.shapes[0]) - 1:
        return np.concatenate(call.inputs), Role(call.layer)
    # Along another axis the same channel comes from each input.
    for ids in call.inputs[1:]:
        numbers.unite(call.inputs[0], ids)
    return call.inputs[0], Role(call.layer)


def _reshape(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    """Split or join the last axis as a row-major reshape does: whole rows of channels only."""
    ids, size = call.inputs[0], call.output_shapes[0][-1]
    if not size or not ids.size or (ids.size % size and size % ids.size):
        raise NotUnderstood(f"it makes {size} channels of {ids.size}")
    if size >= ids.size:
        passed = np.tile(ids, size // ids.size)
    else:
        rows = ids.reshape(-1, size)
        for row in rows[1:]:
            numbers.unite(rows[0], row)
        passed = rows[0]
    sizes = {} if type(call.layer).__name__ == "Flatten" else {"target_shape": passed}
    return passed, Role(call.layer, sizes=sizes)


def _permute(numbers: ChannelNumbers, call: Call) -> tuple[Ids, Role]:
    if call.layer.dims[-1] != len(call.layer.dims):
        raise NotUnderstood("it moves the channels to another axis")
    return _pass(numbers, call)


def described(layer: Any) -> str:
    """Return a layer's name and class as messages have them."""
    return f"{layer.name} ({type(layer).__name__})"


def _made(numbers: ChannelNumbers, layer: Any, count: int) -> Ids:
    whole = "" if _is_elementwise(layer) else f"its activation {_activation_name(layer)} may compute over all channels"
    return numbers.new(count, whole)


def _activation_name(layer: Any) -> str:
    name = layer.get_config()["activation"]
    return name if isinstance(name, str) else str(name.get("class_name") if isinstance(name, dict) else name)


def _is_elementwise(layer: Any) -> bool:
    import tf_keras

    name = _activation_name(layer)
    # A function of one's own may have the name of one of Keras's.
    return name in _ELEMENTWISE and layer.activation is tf_keras.activations.get(name)


def _with_bias(layer: Any, weights: dict[str, dict[int, Ids]], made: Ids) -> dict[str, dict[int, Ids]]:
    return {**weights, "bias": {0: made}} if layer.use_bias else weights


def _positions(shape: Shape) -> int | None:
    return _times(*shape[1:-1])


def _times(*sizes: int | None) -> int | None:
    known: Sequence[int] = [int(size) for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


_MIXING_NORMS = ("LayerNormalization", "GroupNormalization", "UnitNormalization", "Softmax")
_MIXING_PRODUCTS = ("Dot", "MultiHeadAttention", "Attention", "AdditiveAttention")
_MIXING = dict.fromkeys((*_MIXING_NORMS, *_MIXING_PRODUCTS), "it computes over all channels")

_BY_RANK: dict[str, Rule] = {
    "Conv{}D": _convolution,
    "Conv{}DTranspose": _convolution,
    "DepthwiseConv{}D": _depthwise,
    "SeparableConv{}D": _separable,
    **dict.fromkeys(("SpatialDropout{}D", "ZeroPadding{}D", "Cropping{}D", "UpSampling{}D"), _pass),
    **dict.fromkeys(("MaxPooling{}D", "AveragePooling{}D", "GlobalMaxPooling{}D", "GlobalAveragePooling{}D"), _pass),
}

_RULES: dict[str, Rule] = {
    **{pattern.format(rank): rule for pattern, rule in _BY_RANK.items() for rank in (1, 2, 3)},
    **dict.fromkeys(("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU", "RepeatVector", "Resizing"), _pass),
    **dict.fromkeys(("GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization"), _pass),
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"), _merge),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN"), _recurrent),
    **dict.fromkeys(("Flatten", "Reshape"), _reshape),
    "Activation": _activation,
    "BatchNormalization": _batch_normalization,
    "Concatenate": _concatenate,
    "Dense": _dense,
    "Dropout": _dropout,
    "Permute": _permute,
    "PReLU": _prelu,
    "Rescaling": _rescaling,
}
