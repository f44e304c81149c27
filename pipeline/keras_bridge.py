"""A Keras 3 model as a tf_keras model: the configuration in Keras 2's words, the weights copied, the outputs compared.

TF-MOT works on tf_keras only, and tf_keras does not read what Keras 3 writes.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.errors import ModelError

_DROPPED = {
    "quantization_config",
    "lora_rank",
    "lora_alpha",
    "rms_scaling",
    "renorm",
    "renorm_clipping",
    "renorm_momentum",
    "synchronized_",
    "autocast",
}
_MODULES = {"keras.src.models.functional": "keras.models", "keras.src.models.sequential": "keras.models"}
_ZEROS: dict[str, Any] = {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}
_TOLERANCE = 1e-4
_OPEN_SIZE = 32


def to_tf_keras(model: Any) -> Any:
    """Return a tf_keras model with the same layers, names, weights and outputs as ``model`` (Keras 3).

    Raises:
        ModelError: if a layer does not exist in tf_keras, or the outputs differ.
    """
    import tensorflow as tf
    import tf_keras

    document = _converted(json.loads(model.to_json()))
    config = document["config"]
    try:
        if document["class_name"] == "Functional":
            _rewire(config)
            twin = tf_keras.Model.from_config(config)
        elif document["class_name"] == "Sequential":
            twin = tf_keras.Sequential.from_config(config)
        else:
            raise ModelError(
                f"a subclassed Keras 3 model ({document['class_name']}) has no layers that can be rewritten"
            )
        _copy_weights(model, twin)
        _compare(model, twin)
    except (ValueError, TypeError, KeyError, NotImplementedError, tf.errors.InvalidArgumentError) as error:
        raise ModelError(f"this Keras 3 model cannot be rewritten for TF-MOT: {error}") from error
    return twin


def _converted(node: Any) -> Any:
    """Return a serialized Keras 3 object as Keras 2 would have written it."""
    if isinstance(node, list):
        return [_converted(item) for item in node]
    if not isinstance(node, dict) or node.get("class_name") == "__keras_tensor__":
        return node
    if node.get("class_name") == "DTypePolicy":
        return node["config"]["name"]
    node = {key: _converted(value) for key, value in node.items()}
    module = node.get("module")
    if isinstance(module, str):
        node["module"] = _MODULES.get(module, module)
    if isinstance(node.get("config"), dict):
        node["config"] = _layer_config(node.get("class_name"), node["config"])
    return node


def _layer_config(class_name: str | None, config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key not in _DROPPED}
    if class_name == "InputLayer":
        if "batch_shape" in kept:
            kept["batch_input_shape"] = kept.pop("batch_shape")
        kept.pop("optional", None)
    for key, value in kept.items():
        # The weights are copied afterwards, so how they were first drawn no longer matters.
        if key.endswith("_initializer") and isinstance(value, dict):
            kept[key] = dict(_ZEROS)
    return kept


def _rewire(config: dict[str, Any]) -> None:
    """Turn Keras 3's ``{"args", "kwargs"}`` nodes into Keras 2's ``[[layer, node, tensor, kwargs], …]``."""
    layers = config["layers"]
    nested = {layer["name"] for layer in layers if "layers" in layer["config"]}
    for key in ("input_layers", "output_layers"):
        ends = config[key]
        config[key] = ends if ends and isinstance(ends[0], list) else [ends]
    for layer in layers:
        layer["inbound_nodes"] = [_node(layer, node, nested) for node in layer.get("inbound_nodes", [])]
        if layer["class_name"] == "Functional":
            _rewire(layer["config"])


def _node(layer: dict[str, Any], node: dict[str, Any], nested: set[str]) -> list[Any]:
    first, *others = node["args"]
    if others:
        raise NotImplementedError(f"layer {layer['name']} ({layer['class_name']}) takes several tensors by position")
    keywords = {
        key: value for key, value in node["kwargs"].items() if key not in ("mask", "training") or value is not None
    }
    rows = []
    for index, tensor in enumerate(first if isinstance(first, list) else [first]):
        name, node_index, tensor_index = tensor["config"]["keras_history"]
        # Keras 2 counts the call inside a nested model itself as node 0.
        rows.append([name, node_index + (name in nested), tensor_index, keywords if index == 0 else {}])
    return rows


def _copy_weights(source: Any, twin: Any) -> None:
    for layer in source.layers:
        match = twin.get_layer(layer.name)
        if hasattr(layer, "layers"):
            _copy_weights(layer, match)
        else:
            match.set_weights(layer.get_weights())


def _compare(source: Any, twin: Any) -> None:
    import numpy as np

    random = np.random.default_rng(0)
    inputs = [
        random.random([2, *(size or _OPEN_SIZE for size in tensor.shape[1:])], dtype=np.float32)
        for tensor in source.inputs
    ]
    expected = np.asarray(source(inputs if len(inputs) > 1 else inputs[0], training=False))
    found = np.asarray(twin(inputs if len(inputs) > 1 else inputs[0], training=False))
    difference = float(np.abs(expected - found).max())
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ModelError(
            f"this Keras 3 model gives other outputs once rewritten for TF-MOT: largest difference {difference}"
        )
