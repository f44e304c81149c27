"""A model without models inside it: TF-MOT's quantization-aware training takes no other."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.compression import _tfmot
from pipeline.errors import StepError


def flattened(technique: str, model: Any) -> Any:
    """Return ``model`` (tf_keras) with the layers of nested models in its own graph, sharing their weights.

    Raises:
        StepError: if two layers have one name, which a graph cannot hold.
    """
    import tf_keras

    if not any(_tfmot.is_graph(layer) for layer in model.layers):
        return model
    counts = Counter(layer.name for layer in _tfmot.layers_of(model))
    clashing = [name for name, count in counts.items() if count > 1 and not _is_input(model, name)]
    if clashing:
        raise StepError(
            f"{technique} takes nested models apart, and several of their layers are called {', '.join(clashing)}; "
            "rename them"
        )
    inputs = [
        tf_keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.node.layer.name)
        for tensor in model.inputs
    ]
    outputs = _replayed(model, inputs)
    return tf_keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=model.name)


def _is_input(model: Any, name: str) -> bool:
    import tf_keras

    found = (layer for layer in _tfmot.layers_of(model) if layer.name == name)
    return all(isinstance(layer, tf_keras.layers.InputLayer) for layer in found)


def _replayed(model: Any, inputs: list[Any]) -> list[Any]:
    """Return what ``model`` makes of ``inputs``, calling the layers of nested models themselves."""
    import tensorflow as tf

    known = {str(id(tensor)): _Endless(given) for tensor, given in zip(model.inputs, inputs, strict=True)}
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            if node.is_input:
                continue
            arguments, keywords = node.map_arguments(known)
            if _tfmot.is_graph(node.layer):
                made = _replayed(node.layer, tf.nest.flatten(arguments))
            else:
                made = tf.nest.flatten(node.layer(*arguments, **keywords))
            ends = tf.nest.flatten(node.outputs)
            known |= {str(id(tensor)): _Endless(given) for tensor, given in zip(ends, made, strict=True)}
    return [known[str(id(tensor))].pop() for tensor in model.outputs]


class _Endless:
    """What Keras takes a tensor from as often as it is used."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def pop(self) -> Any:
        """Return the tensor; it stays."""
        return self.tensor
