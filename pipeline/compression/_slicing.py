"""Builds the smaller model: the same layers with fewer filters, and what is left of the weights."""

from __future__ import annotations

import copy
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.compression._channels import Channels, Kept, Role
from pipeline.errors import StepError

_TOLERANCE = 1e-4
"""Relative to the largest output: sums over fewer terms are rounded in another order."""


def without_channels(model: Any, channels: Channels, kept: Kept) -> Any:
    """Return a new model of only the channels of ``model`` that are ``kept``, with its layers' names."""
    config = copy.deepcopy(model.get_config())
    for layer in config["layers"]:
        # It has the shapes of before, and Keras would build the layer with them.
        layer.pop("build_config", None)
        role = channels.roles.get(layer["config"]["name"])
        for key, ids in role.sizes.items() if role else ():
            layer["config"][key] = _resized(layer["config"][key], int(channels.mask(ids, kept).sum()))
    smaller = _from_config(model, config)
    for layer in smaller.layers:
        source, role = model.get_layer(layer.name), channels.roles.get(layer.name)
        layer.set_weights(_sliced(role, channels, kept) if role else source.get_weights())
    return smaller


def with_channels_unread(model: Any, channels: Channels, kept: Kept) -> Any:
    """Return a copy of ``model`` in which no layer reads the channels that are not ``kept``: it has zeros there.

    What such channels hold then makes no difference, so this is what the smaller model must compute.
    """
    twin = without_channels(model, channels, channels.all_kept())
    for role in channels.roles.values():
        for name, axis in role.reads.items():
            variable = attrgetter(name)(twin.get_layer(role.name))
            read = channels.mask(role.weights[name][axis], kept)
            variable.assign(variable.numpy() * _along(read, axis, len(variable.shape)))
    return twin


def check_removal(model: Any, smaller: Any, channels: Channels, kept: Kept, inputs: npt.NDArray[Any]) -> None:
    """Raise StepError unless ``smaller`` computes what ``model`` does when nothing reads the removed channels."""
    expected = _outputs(with_channels_unread(model, channels, kept), inputs)
    differences = [float(np.abs(a - b).max()) for a, b in zip(expected, _outputs(smaller, inputs), strict=True)]
    allowed = _TOLERANCE * max(1.0, *(float(np.abs(values).max()) for values in expected))
    if not max(differences) <= allowed:
        raise StepError(
            f"channel_pruning removed channels wrongly: outputs differ by {max(differences):g} from those of the same "
            f"model whose removed channels are not read; expected {allowed:g} at most"
        )


def _sliced(role: Role, channels: Channels, kept: Kept) -> list[npt.NDArray[Any]]:
    found = {id(attrgetter(name)(role.layer)): axes for name, axes in role.weights.items()}
    weights = []
    for variable in role.layer.weights:
        values = variable.numpy()
        for axis, ids in found.get(id(variable), {}).items():
            values = np.compress(channels.mask(ids, kept), values, axis)
        weights.append(values)
    return weights


def _resized(value: Any, count: int) -> Any:
    """Return a size, or a shape that ends with one, for ``count`` channels; -1 stays what is left over."""
    if not isinstance(value, list | tuple):
        return count
    return (*value[:-1], value[-1] if value[-1] == -1 else count)


def _from_config(model: Any, config: dict[str, Any]) -> Any:
    import tf_keras

    own = {type(layer).__name__: type(layer) for layer in model.layers if not _is_keras(layer)}
    kind = tf_keras.Sequential if isinstance(model, tf_keras.Sequential) else tf_keras.Model
    return kind.from_config(config, custom_objects=own)


def _is_keras(layer: Any) -> bool:
    return type(layer).__module__.startswith("tf_keras.")


def _along(mask: Kept, axis: int, rank: int) -> Kept:
    return mask.reshape([-1 if place == axis else 1 for place in range(rank)])


def _outputs(model: Any, inputs: npt.NDArray[Any]) -> list[npt.NDArray[np.float64]]:
    import tensorflow as tf

    return [np.asarray(values, np.float64) for values in tf.nest.flatten(model(inputs, training=False))]
