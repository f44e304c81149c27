"""TF-MOT's quantize wrappers: put around layers, given ranges before training, and made fit to be stored.

Left to itself TF-MOT begins every range of activations at -6 and 6 and moves it by a thousandth a batch, shares one
weight quantizer among all layers of a kind, which the first one without zeros sets for the rest, and gives back
wrappers that hold a kernel twice, so that what it saves it cannot load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.compression import _tfmot
from pipeline.errors import StepError
from pipeline.model_formats.model_files import first_line, quantize_scope
from pipeline.training.fine_tuning import set_meanwhile
from pipeline.training.training_data import TrainingData

CLUSTERED = ("CQAT", "PCQAT")
"""The kinds of treatment that keep clusters."""

_DECAY = 0.999
"""Of TF-MOT's moving averages of ranges."""
_BATCHES, _ROUNDS = 10, 3


def calls(model: Any) -> Counter[int]:
    """Return how often a model without nested ones calls each layer, by the layer's ``id``."""
    return Counter(id(node.layer) for nodes in model._nodes_by_depth.values() for node in nodes)


def supports(layer: Any) -> bool:
    """Whether TF-MOT quantizes a layer of this kind, its activation included."""
    import tf_keras

    layers = tf_keras.layers
    if isinstance(layer, layers.SeparableConv2D | layers.BatchNormalization):
        # TF-MOT takes the first apart, and folds the second into what stands before it.
        return True
    registry = _default_registry()
    if not registry.supports(layer):
        return False
    try:
        registry.get_quantize_config(layer).get_output_quantizers(layer)
    except ValueError:  # an Activation layer whose function it does not know
        return False
    return True


def wrapped(model: Any, treated: Iterable[Any]) -> Any:
    """Return a copy of ``model`` with TF-MOT's wrappers around ``treated`` and supported layers without kernels.

    Raises:
        StepError: if TF-MOT refuses the model; the message has its reason.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    keras = tfmot.quantization.keras
    times = calls(model)
    plain = [layer for layer in model.layers if not _tfmot.kernels(layer) and supports(layer)]
    chosen = {id(layer) for layer in treated} | {id(layer) for layer in plain if times[id(layer)] == 1}
    try:
        annotated = tf_keras.models.clone_model(
            model,
            clone_function=lambda layer: keras.quantize_annotate_layer(layer) if id(layer) in chosen else layer,
        )
        with keras.quantize_scope(_own_classes(model)), _clusters_of_whole_kernels():
            return keras.quantize_apply(annotated, _scheme({x.name for x in model.layers if times[id(x)] > 1}))
    except Exception as error:  # TF-MOT raises whatever its stages stumble on
        raise StepError(f"TF-MOT cannot train this model under quantization: {first_line(error)}") from error


def kind_of(quantizer: Any) -> str:
    """Return how a weight quantizer of TF-MOT treats its tensor: QAT, PQAT, CQAT or PCQAT."""
    name = type(quantizer).__name__
    if name.startswith("ClusterPreserve"):
        return "PCQAT" if quantizer.preserve_sparsity else "CQAT"
    return "PQAT" if name.startswith("PrunePreserve") else "QAT"


def measure_ranges(model: Any, data: TrainingData, batch_size: int) -> None:
    """Set the ranges of activations to what training samples give, before training moves them on.

    A moving average over n batches is d^n of where it began and 1 - d^n of what it saw; the first is taken off. Once
    more for what comes after, which saw values that were cut off at first.
    """
    indices = data.fixed_indices(_BATCHES * batch_size)
    batches = [data.inputs(indices[start : start + batch_size]) for start in range(0, len(indices), batch_size)]
    kept = np.float32(_DECAY ** len(batches))
    ranges = list(_ranges(model))
    with _still_batch_norm(model):
        for _ in range(_ROUNDS):
            before = [variable.numpy() for variable in ranges]
            for batch in batches:
                model(batch, training=True)
            for variable, start in zip(ranges, before, strict=True):
                variable.assign((variable - kept * start) / (1 - kept))


def share_ranges(model: Any) -> None:
    """Give all channels of each clustered kernel the widest one's range.

    By its own range, as TF-MOT leaves it, each channel makes other integers of the same clusters, so that a kernel of
    eight values has dozens after conversion, and compresses less.
    """
    for layer in model.layers:
        for _, quantizer, limits in getattr(layer, "_weight_vars", []):
            if kind_of(quantizer) in CLUSTERED:
                low, high = limits["min_var"], limits["max_var"]
                widest = max(float(high.numpy().max()), -float(low.numpy().min()))
                low.assign(np.full(low.shape, -widest, np.float32))
                high.assign(np.full(high.shape, widest, np.float32))


def storable(model: Any, data: TrainingData) -> Any:
    """Return ``model`` built anew from its configuration, as a loader will build it, with the same weights.

    Raises:
        StepError: if it does not give the same outputs.
    """
    import tf_keras

    with quantize_scope(), tf_keras.utils.custom_object_scope(_own_classes(model)):
        twin = type(model).from_config(model.get_config())
    twin.set_weights(model.get_weights())
    sample = data.inputs(data.fixed_indices(8))
    pairs = zip(_listed(model(sample, training=False)), _listed(twin(sample, training=False)), strict=True)
    if not all(np.allclose(expected, found, atol=1e-5) for expected, found in pairs):
        raise StepError("the model trained under quantization gives other outputs once it is built anew")
    return twin


def _default_registry() -> Any:
    import tensorflow_model_optimization as tfmot

    return tfmot.quantization.keras.default_8bit.Default8BitQuantizeRegistry()


def _scheme(shared: Collection[str]) -> Any:
    """Return TF-MOT's 8-bit scheme with a weight quantizer for each tensor by itself, by its zeros and clusters.

    Layers called ``shared`` are used several times, and not even their outputs are quantized.
    """
    import tensorflow_model_optimization as tfmot

    class ByTensor(tfmot.quantization.keras.default_8bit.Default8BitQuantizeScheme):  # type: ignore[misc]
        def get_quantize_registry(self) -> Any:
            return _ByTensor(shared)

        def get_layout_transformer(self) -> Any:
            return _Layout(super().get_layout_transformer())

    return ByTensor()


@dataclass(frozen=True)
class _Layout:
    """TF-MOT's rewriting of the graph, with kernels quantized where a ReLU layer follows without normalization.

    TF-MOT takes the quantizers from such a layer altogether, where those of its output alone are meant.
    """

    transformer: Any

    def apply(self, model: Any, quantize_map: dict[str, Any]) -> Any:
        from tensorflow_model_optimization.python.core.quantization.keras import quantize_aware_activation

        model, quantize_map = self.transformer.apply(model, quantize_map)
        for layer in model.layers:
            config = quantize_map.get(layer.name, {}).get("quantize_config")
            if type(config).__name__ == "NoOpQuantizeConfig" and _tfmot.kernels(layer):
                quantize_map[layer.name]["quantize_config"] = None
                layer.activation = quantize_aware_activation.NoOpActivation()
        return model, quantize_map


@dataclass(frozen=True)
class _ByTensor:
    """A registry as TF-MOT asks it: whether it supports a layer, and how that is quantized."""

    shared: Collection[str]

    def supports(self, layer: Any) -> bool:
        return layer.name not in self.shared and supports(layer)

    def get_quantize_config(self, layer: Any) -> Any:
        import tensorflow_model_optimization as tfmot
        import tf_keras
        from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
            default_8bit_quantize_configs,
        )

        if isinstance(layer, tf_keras.layers.BatchNormalization):
            # With no convolution before it there is nothing that it could be folded into.
            return default_8bit_quantize_configs.NoOpQuantizeConfig()
        combine = tfmot.experimental.combine
        pruned, clustered = _state(layer)
        if clustered:
            scheme = combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=pruned)
        elif pruned:
            scheme = combine.Default8BitPrunePreserveQuantizeScheme()
        else:
            return _default_registry().get_quantize_config(layer)
        return scheme.get_quantize_registry().get_quantize_config(layer)


def _state(layer: Any) -> tuple[bool, bool]:
    """Return whether a layer's kernel is pruned and clustered, as far as TF-MOT can preserve it."""
    import tf_keras

    if type(layer) not in (tf_keras.layers.Conv2D, tf_keras.layers.Dense):
        return False, False
    values = layer.kernel.numpy()
    return _tfmot.is_pruned(values), _tfmot.is_clustered(values)


def _ranges(model: Any) -> Iterator[Any]:
    """Yield the variables of activations' ranges; those of weights are the last batch's, and the input's are exact."""
    for layer in model.layers:
        if not type(layer).__name__.startswith("QuantizeWrapper"):
            continue
        exact = {id(limit) for _, _, found in layer._weight_vars for limit in found.values()}
        for variable in layer.weights:
            if _tfmot.name_of(variable).endswith(("_min", "_max")) and id(variable) not in exact:
                yield variable


@contextmanager
def _clusters_of_whole_kernels() -> Iterator[None]:
    """Let TF-MOT take the clusters of all of a kernel's channels together.

    It takes a kernel of which every channel has all the values for one that was clustered channel by channel, and
    trains eight clusters of 64 channels apart from each other, to 512 values.
    """
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.cluster_preserve import (
        cluster_preserve_quantize_registry as registry,
    )

    def centroids(layer: Any, weight: Any, data_format: Any) -> tuple[Any, Any, Any, bool]:
        found, index = registry.get_unique(weight)
        return found, tf.size(found), index, False

    with set_meanwhile([registry], "get_centroids", centroids):
        yield


@contextmanager
def _still_batch_norm(model: Any) -> Iterator[None]:
    import tf_keras

    norms = [layer for layer in model._flatten_layers() if isinstance(layer, tf_keras.layers.BatchNormalization)]
    with set_meanwhile(norms, "trainable", False):
        yield


def _own_classes(model: Any) -> dict[str, Any]:
    """Return the classes of layers that are not Keras's or TF-MOT's, by their names."""
    classes = {type(layer) for layer in model.layers}
    known = ("tf_keras.", "tensorflow_model_optimization.", "pipeline.")
    return {found.__name__: found for found in classes if not found.__module__.startswith(known)}


def _listed(outputs: Any) -> list[Any]:
    import tensorflow as tf

    return list(tf.nest.flatten(outputs))
