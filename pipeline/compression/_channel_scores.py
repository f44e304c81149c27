"""How much each channel matters, by published criteria: one score for each class of channels, low ones go first."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.compression._channels import Channels, Ids, Role
from pipeline.errors import StepError
from pipeline.training.fine_tuning import gives_probabilities
from pipeline.training.training_data import TrainingData

Scores = npt.NDArray[np.float64]

_BATCH = 32


def l1_scores(channels: Channels) -> Scores:
    """Return the mean of a class's filters' L1 norms (Li et al., "Pruning Filters for Efficient ConvNets", 2017).

    Li compares the filters of one layer only. To compare those of all, a layer's norms are divided by their mean: a
    choice of ours, and one that, unlike a Euclidean norm, does not depend on how wide the layer is.
    """
    mean = _Mean(channels)
    for role in channels.makers:
        assert role.made is not None
        filters, name, axis = role.made
        norms = _summed(np.abs(attrgetter(name)(role.layer).numpy()), axis)
        mean.add(filters, norms / max(float(norms.mean()), 1e-30))
    return mean.values()


def bn_scores(channels: Channels) -> Scores:
    """Return the mean over a class of the scales |γ| of batch normalization (Liu et al., "Learning Efficient
    Convolutional Networks through Network Slimming", 2017).

    As in the paper one threshold holds for all layers without any normalization, since what is scaled has variance 1.
    The paper first trains with an L1 penalty on γ; here the model is taken as it is.
    """
    mean = _Mean(channels)
    for role in channels.roles.values():
        if "gamma" in role.weights:
            mean.add(role.weights["gamma"][0], np.abs(role.layer.gamma.numpy()))
    return mean.values()


def without_scale(channels: Channels) -> dict[int, str]:
    """Return the channels made that no batch normalization with a scale passes on, with the reason."""
    scaled: set[int] = set()
    for role in channels.roles.values():
        if "gamma" in role.weights:
            scaled |= set(channels.roots[role.weights["gamma"][0]].tolist())
    reason = "no batch normalization with a scale follows it, which bn_scale needs; l1 and taylor do not"
    made = [channel for role in channels.makers for channel in role.filters.tolist()]
    return {channel: reason for channel in made if int(channels.roots[channel]) not in scaled}


def taylor_scores(model: Any, channels: Channels, data: TrainingData, samples: int) -> Scores:
    """Return the squared first-order change of the loss when a class is removed, summed over batches of 32 samples
    (Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019, the score of a set of parameters).

    The parameters are those that read the class: setting them to zero is just what removing it does, whatever there is
    on the way. Scores are changes of one loss, so they compare across layers as they are, as the paper has it.

    Raises:
        StepError: if there are no labels.
    """
    import tensorflow as tf
    import tf_keras

    if data.labels is None:
        raise StepError("the criterion taylor needs x_train and y_train; the data has only test samples")
    reading = [
        (role.weights[name][axis], attrgetter(name)(role.layer), axis) for role, name, axis in _reading(channels)
    ]
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=not gives_probabilities(model, data))

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def gradients(inputs: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(labels, model(inputs, training=False))
        return tape.gradient(value, [variable for _, variable, _ in reading], unconnected_gradients="zero")

    scores = np.zeros(len(channels.roots))
    for batch in _batches(data.fixed_indices(samples)):
        change = np.zeros_like(scores)
        found = gradients(data.inputs(batch), data.labels[batch])
        for (ids, variable, axis), gradient in zip(reading, found, strict=True):
            np.add.at(change, channels.roots[ids], _summed((gradient * variable).numpy(), axis))
        scores += np.square(change)
    return scores


class _Mean:
    """The mean over all that is said of a class."""

    def __init__(self, channels: Channels) -> None:
        self._roots = channels.roots
        self._sums, self._counts = np.zeros(len(self._roots)), np.zeros(len(self._roots))

    def add(self, ids: Ids, values: npt.NDArray[Any]) -> None:
        np.add.at(self._sums, self._roots[ids], values)
        np.add.at(self._counts, self._roots[ids], 1)

    def values(self) -> Scores:
        mean: Scores = self._sums / np.maximum(self._counts, 1)
        return mean


def _reading(channels: Channels) -> list[tuple[Role, str, int]]:
    return [(role, name, axis) for role in channels.roles.values() for name, axis in role.reads.items()]


def _batches(indices: list[int]) -> list[list[int]]:
    return [indices[start : start + _BATCH] for start in range(0, len(indices), _BATCH)]


def _summed(values: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    total: npt.NDArray[Any] = values.sum(axis=tuple(place for place in range(values.ndim) if place != axis))
    return total
