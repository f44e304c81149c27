"""A Keras 3 model as a tf_keras model: the configuration in Keras 2's words, the weights copied, the outputs compared.

TF-MOT works on tf_keras only, and tf_keras does not read what Keras 3 writes.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

from pipeline.errors import ModelError

_MODULES = {"keras.src.models.functional": "keras.models", "keras.src.models.sequential": "keras.models"}
_MODELS = ("Functional", "Sequential", "Model")
_ZEROS: dict[str, Any] = {"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None}
_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}
_OF_EVERY_LAYER = {"name", "trainable", "dtype", "activity_regularizer"}
# Settings of Keras 3 that decide how it computes, or what it draws while it trains, and not what a trained model gives.
_DROPPED = {"seed", "autocast", "flash_attention", "quantization_config", "use_cudnn"}
_OPERATIONS = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
_TOLERANCE = 1e-4
_OPEN_SIZE = 32
_SAMPLES = 2


def to_tf_keras(model: Any) -> Any:
    """Return a tf_keras model with the same layers, names, weights and outputs as ``model`` (Keras 3).

    Raises:
        ModelError: if a layer does not exist in tf_keras, or the outputs differ; the message names the layer.
    """
    import tensorflow as tf

    document = json.loads(model.to_json())
    if document["class_name"] not in _MODELS:
        raise ModelError(f"a subclassed Keras 3 model ({document['class_name']}) has no layers that can be rewritten")
    try:
        document = _converted(document)
        _rewire(document)
        twin = _built(document)
        _copy_weights(model, twin)
        _compare(model, twin)
    except (ValueError, TypeError, KeyError, NotImplementedError, tf.errors.InvalidArgumentError) as error:
        raise ModelError(f"this Keras 3 model cannot be rewritten for TF-MOT: {error}") from error
    return twin


def _built(document: dict[str, Any]) -> Any:
    import tf_keras

    kind = tf_keras.Sequential if document["class_name"] == "Sequential" else tf_keras.Model
    try:
        return kind.from_config(document["config"])
    except (ValueError, TypeError, KeyError) as error:
        raise NotImplementedError(_culprit(document) or str(error)) from error


def _culprit(document: dict[str, Any]) -> str:
    """Return the first layer that tf_keras cannot make, and why, for a message; "" if each can be made alone."""
    import tf_keras

    for layer in _layers(document):
        if layer["class_name"] not in _MODELS:
            try:
                tf_keras.layers.deserialize({key: layer[key] for key in ("class_name", "config")})
            except (ValueError, TypeError, KeyError) as error:
                return f"layer {_label(layer)}: {str(error).splitlines()[-1]}"
    return ""


def _layers(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the layers of a serialized model, those of models within it too."""
    for layer in document["config"]["layers"]:
        yield layer
        if "layers" in layer["config"]:
            yield from _layers(layer)


def _label(layer: dict[str, Any]) -> str:
    return f"{layer['config'].get('name', layer.get('name'))} ({layer['class_name']})"


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
    if module == "keras.layers":
        node["config"] = _layer_config(node["class_name"], node["config"])
    elif isinstance(module, str) and module.startswith("keras.src.ops"):
        _make_layer(node)
    return node


def _make_layer(operation: dict[str, Any]) -> None:
    """Turn an operation between tensors, such as ``a + b``, into the layer that does the same."""
    for node in operation["inbound_nodes"]:
        if operation["class_name"] not in _OPERATIONS or not all(map(_is_tensor, node["args"])):
            raise NotImplementedError(f"layer {_label(operation)} is an operation of Keras 3, which is no layer")
        node["args"] = [node["args"]]
    operation.update(module="keras.layers", registered_name=None)


def _layer_config(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a layer's settings in tf_keras's words.

    Raises:
        NotImplementedError: if tf_keras has no such layer, or the layer has a setting that changes what it computes
            and that tf_keras does not know.
    """
    import keras
    import tf_keras

    label = f"layer {config['name']} ({class_name})"
    ours, theirs = getattr(keras.layers, class_name, None), getattr(tf_keras.layers, class_name, None)
    if ours is None or theirs is None:
        raise NotImplementedError(f"{label} does not exist in tf_keras")
    if class_name == "InputLayer":
        kept = {key: value for key, value in config.items() if key not in ("batch_shape", "optional")}
        return {**kept, "batch_input_shape": config["batch_shape"]}
    known, defaults = _settings(theirs).keys() | _OF_EVERY_LAYER, _settings(ours)
    kept = {}
    for key, value in config.items():
        name = _RENAMED.get((class_name, key), key)
        if name in known:
            # The weights are copied afterwards, so how they were first drawn no longer matters.
            kept[name] = dict(_ZEROS) if name.endswith("_initializer") and isinstance(value, dict) else value
        elif value and key not in _DROPPED and value != defaults.get(key):
            raise NotImplementedError(f"{label} has {key} {value!r}, which tf_keras does not know")
    if class_name == "MultiHeadAttention":
        # tf_keras asks for them, and makes the weights at the first call without them.
        kept.update(query_shape=None, key_shape=None, value_shape=None)
    return kept


def _settings(layer_class: type) -> dict[str, Any]:
    """Return the settings that a layer's class and those it inherits from take, with their defaults."""
    return {
        parameter.name: None if parameter.default is inspect.Parameter.empty else parameter.default
        for each in reversed(layer_class.__mro__)
        if "__init__" in vars(each)
        for parameter in inspect.signature(vars(each)["__init__"]).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _rewire(document: Any) -> None:
    """Turn Keras 3's ``{"args", "kwargs"}`` nodes into Keras 2's ``[[layer, node, tensor, kwargs], …]``, at any depth.

    ``document`` is changed in place.
    """
    if isinstance(document, list):
        for item in document:
            _rewire(item)
    if not isinstance(document, dict) or not isinstance(document.get("config"), dict):
        return
    config = document["config"]
    if document["class_name"] == "Functional":
        nested = {layer["name"] for layer in config["layers"] if "layers" in layer["config"]}
        for key in ("input_layers", "output_layers"):
            config[key] = _ends(config[key], nested)
        for layer in config["layers"]:
            layer["inbound_nodes"] = [_node(layer, node, nested) for node in layer.get("inbound_nodes", [])]
    for value in config.values():
        _rewire(value)


def _ends(ends: Any, nested: set[str]) -> Any:
    if isinstance(ends, dict):
        return {key: _ends(end, nested)[0] for key, end in ends.items()}
    rows = ends if ends and isinstance(ends[0], list) else [ends]
    return [[name, _node_index(name, index, nested), tensor] for name, index, tensor in rows]


def _node(layer: dict[str, Any], node: dict[str, Any], nested: set[str]) -> list[Any]:
    first, *others = node["args"]
    given = {key: value for key, value in node["kwargs"].items() if value is not None}
    given.update({key: value for key, value in zip(_call_names(layer), others, strict=False) if value is not None})
    keywords = {key: _references(value, nested) for key, value in given.items()}
    tensors = first if isinstance(first, list) else [first]
    if not tensors or not all(map(_is_tensor, tensors)):
        raise NotImplementedError(f"layer {_label(layer)} is called with something that is no tensor")
    rows = [_references(tensor, nested) for tensor in tensors]
    return [[*row, keywords if index == 0 else {}] for index, row in enumerate(rows)]


def _call_names(layer: dict[str, Any]) -> list[str]:
    """Return what tf_keras calls the second, third, … argument of a call of this layer."""
    import tf_keras

    layer_class = getattr(tf_keras.layers, layer["class_name"], tf_keras.Model)
    return list(inspect.signature(layer_class.call).parameters)[2:]


def _references(value: Any, nested: set[str]) -> Any:
    """Return ``value`` with ``[layer, node, tensor]`` in the place of each tensor."""
    if isinstance(value, list):
        return [_references(item, nested) for item in value]
    if not _is_tensor(value):
        return value
    name, index, tensor = value["config"]["keras_history"]
    return [name, _node_index(name, index, nested), tensor]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def _node_index(name: str, index: int, nested: set[str]) -> int:
    # Keras 2 counts the call inside a nested model itself as node 0; an index that it does not find, it looks for
    # for ever.
    return index + (name in nested)


def _copy_weights(source: Any, twin: Any) -> None:
    for layer in source.layers:
        match = twin.get_layer(layer.name)
        if hasattr(layer, "layers"):
            _copy_weights(layer, match)
        elif hasattr(getattr(layer, "layer", None), "layers"):
            _copy_weights(layer.layer, match.layer)
        elif layer.weights:
            match.set_weights(layer.get_weights())


def _compare(source: Any, twin: Any) -> None:
    """Raise ModelError unless both give the same for random inputs, in every output."""
    import numpy as np
    import tensorflow as tf

    inputs = _random_inputs(source)
    given = inputs if len(inputs) > 1 else inputs[0]
    pairs = zip(
        tf.nest.flatten(source(given, training=False)), tf.nest.flatten(twin(given, training=False)), strict=True
    )
    for number, (expected, found) in enumerate((np.asarray(a), np.asarray(b)) for a, b in pairs):
        difference = float(np.abs(expected - found).max())
        if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ModelError(
                f"this Keras 3 model gives other outputs once rewritten for TF-MOT: largest difference {difference} "
                f"in output {number}"
            )


def _random_inputs(source: Any) -> list[Any]:
    """Return inputs [2, …] for each of the model's: tokens where they are looked up or of integers, else of 0 to 1."""
    import keras
    import numpy as np

    random = np.random.default_rng(0)
    embeddings = [layer for layer in source._flatten_layers() if isinstance(layer, keras.layers.Embedding)]
    tokens = min((layer.input_dim for layer in embeddings), default=2)
    looked_up = {id(tensor) for layer in embeddings for node in layer._inbound_nodes for tensor in node.input_tensors}
    inputs = []
    for tensor in source.inputs:
        shape = [_SAMPLES, *(size or _OPEN_SIZE for size in tensor.shape[1:])]
        if np.dtype(tensor.dtype).kind in "iu" or id(tensor) in looked_up:
            inputs.append(random.integers(0, tokens, shape).astype(tensor.dtype))
        else:
            inputs.append(random.random(shape, dtype=np.float32).astype(tensor.dtype))
    return inputs
