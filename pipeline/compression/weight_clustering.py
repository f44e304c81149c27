"""Weight clustering with fine-tuning, by TensorFlow Model Optimization: each tensor keeps a few distinct values.

Source: S. Han, H. Mao, W. J. Dally, "Deep Compression", 2016, weight sharing. The file shrinks only once it is
compressed: a flatbuffer stores each weight, not its cluster.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline.compression import Report, _tfmot
from pipeline.errors import StepError
from pipeline.results.record import LeftLayer
from pipeline.training.fine_tuning import FineTunedSettings, fine_tune
from pipeline.training.training_data import TrainingData

_NAME = "weight_clustering"


class Settings(FineTunedSettings):
    """``clusters`` is how many distinct values each tensor keeps, zero among them after pruning.

    ``initialization`` is how the first centroids are found. Whether zeros are kept is decided for each tensor by its
    own share of them.
    """

    clusters: int = Field(16, ge=2, le=256)
    initialization: Literal["kmeans_plus_plus", "density_based", "linear", "random"] = "kmeans_plus_plus"
    learning_rate: float = Field(0.0001, gt=0, le=1)


def untreated(model: Any, settings: Settings) -> list[LeftLayer]:
    """Return the layers with weights that are not clustered.

    Raises:
        StepError: if no layer can be clustered.
    """
    treated, left = _survey(model, settings)
    return left + _tfmot.partly(treated, _clusterable)


def rewrite(model: Any, settings: Settings, data: TrainingData, report: Report) -> Any:
    """Return ``model`` (tf_keras) with clustered weights, the centroids fine-tuned.

    Raises:
        StepError: if there are no labels to train with, no layer can be clustered, or more values are left than asked.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    treated, _ = _survey(model, settings)
    chosen = {id(layer) for layer in treated}
    others = [layer for layer in _tfmot.layers_of(model) if id(layer) not in chosen]
    names = {layer.name for layer in treated}
    before = {_tfmot.name_of(t): _tfmot.zero_share(t.numpy()) for layer in treated for t in _clusterable(layer)}
    _tell_of_zeros(before, report)
    # TF-MOT gives the layers back with nameless weights, and takes those of the model itself apart.
    clustered = tf_keras.models.clone_model(model)
    wrapped = _tfmot.replaced(model, treated, lambda layer: _wrapped(layer, settings))
    with _tfmot.spared(others) as callback:
        fine_tune(wrapped, data, settings, report, [callback])
    clustered.set_weights(tfmot.clustering.keras.strip_clustering(wrapped).get_weights())
    for layer in _tfmot.layers_of(clustered):
        if layer.name in names:
            _check(layer, settings, before, report)
    return clustered


def _survey(model: Any, settings: Settings) -> tuple[list[Any], list[LeftLayer]]:
    return _tfmot.survey(_NAME, model, settings, lambda layer: _why_not(layer, settings))


def _why_not(layer: Any, settings: Settings) -> str:
    import tf_keras

    if isinstance(layer, tf_keras.layers.MultiHeadAttention):
        return "TF-MOT clusters it, but cannot take its wrapper off again"
    tensors = _clusterable(layer)
    if not tensors:
        return "TF-MOT does not cluster such layers"
    for tensor in tensors:
        values = tensor.numpy()
        pruned = _tfmot.is_pruned(values)
        if pruned and settings.clusters < 3:
            return "it is pruned, and 2 clusters cannot keep its zeros; 3 can"
        weights = np.count_nonzero(values) if pruned else values.size
        if weights <= settings.clusters:
            return f"it has {weights} weights{' that are not zero' if pruned else ''}, no more than clusters"
    return ""


def _clusterable(layer: Any) -> list[Any]:
    """Return the variables that TF-MOT clusters in a layer; none when it refuses the layer."""
    import tensorflow_model_optimization as tfmot

    try:
        tfmot.clustering.keras.cluster_weights(layer, 2, tfmot.clustering.keras.CentroidInitialization.LINEAR)
    except ValueError:
        return []
    return [tensor for _, tensor in layer.get_clusterable_weights()]


def _wrapped(layer: Any, settings: Settings) -> Any:
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

    # The public function cannot keep zeros.
    return cluster.cluster_weights(
        layer,
        settings.clusters,
        tfmot.clustering.keras.CentroidInitialization[settings.initialization.upper()],
        preserve_sparsity=any(_tfmot.is_pruned(tensor.numpy()) for tensor in _clusterable(layer)),
    )


def _tell_of_zeros(shares: dict[str, float], report: Report) -> None:
    pruned = [name for name, share in shares.items() if share >= _tfmot.PRUNED]
    if pruned:
        report.note(f"zeros are kept, as one of the clusters, in {', '.join(pruned)}")


def _check(layer: Any, settings: Settings, before: dict[str, float], report: Report) -> None:
    for tensor in _clusterable(layer):
        values, name = tensor.numpy(), _tfmot.name_of(tensor)
        distinct, share = len(np.unique(values)), _tfmot.zero_share(values)
        if distinct > settings.clusters:
            raise StepError(f"{_NAME} left {distinct} distinct values in {name}; expected {settings.clusters} at most")
        if share < before.get(name, 0) - 0.001 and before[name] >= _tfmot.PRUNED:
            report.note(f"{name} had a share of {before[name]:.3f} zeros, and has {share:.3f}")
