"""What the techniques built on TensorFlow Model Optimization share: which layers they treat, and what training spares.

TF-MOT refuses a whole model for one layer that it does not know, and skips others without a word. Here each layer is
wrapped by itself, so that the rest of the model is left, and named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.compression import RewriteSettings, not_chosen
from pipeline.errors import StepError
from pipeline.results.record import LeftLayer
from pipeline.training.fine_tuning import set_meanwhile

PRUNED = 0.1
"""The share of zeros from which a tensor counts as pruned: training alone leaves next to none."""
_MOST_CLUSTERS = 256


def layers_of(model: Any) -> Iterator[Any]:
    """Yield each layer of a model once, those inside nested models too."""
    seen: set[int] = set()
    for layer in model.layers:
        for found in layers_of(layer) if is_graph(layer) else (layer,):
            if id(found) not in seen:
                seen.add(id(found))
                yield found


def is_graph(layer: Any) -> bool:
    """Whether a layer is a functional or sequential model, whose layers can be reached."""
    return bool(getattr(layer, "_is_graph_network", False))


def kernels(layer: Any) -> list[Any]:
    """Return the variables of a layer that have at least two dimensions."""
    return [weight for weight in layer.weights if weight.shape.rank >= 2]


def survey(
    technique: str, model: Any, settings: RewriteSettings, why_not: Callable[[Any], str]
) -> tuple[list[Any], list[LeftLayer]]:
    """Return the layers with kernels that are treated, and those that are left.

    Args:
        technique: its name, for messages.
        model: a tf_keras model.
        settings: choose layers by name.
        why_not: says why a layer cannot be treated; nothing if it can.

    Raises:
        StepError: if no layer can be treated, or the model is a subclassed one.
    """
    if not is_graph(model):
        raise StepError(f"{technique} cannot treat this model: {type(model).__name__} is neither functional nor built")
    treated, left = [], []
    for layer in (layer for layer in layers_of(model) if kernels(layer)):
        if not settings.chooses(layer.name):
            left.append(not_chosen(layer))
        elif reason := why_not(layer):
            left.append(LeftLayer(layer.name, f"{type(layer).__name__}: {reason}"))
        else:
            treated.append(layer)
    if not treated:
        named = "; ".join(f"{layer.layer}: {layer.reason}" for layer in left) or "none has weights"
        raise StepError(f"{technique} can treat no layer of this model: {named}")
    return treated, left


def partly(layers: Iterable[Any], tensors: Callable[[Any], list[Any]]) -> list[LeftLayer]:
    """Return the treated layers that keep a kernel as it is, such as a separable convolution's depthwise one."""
    found = []
    for layer in layers:
        treated = {id(tensor) for tensor in tensors(layer)}
        left = [name_of(k).split("/")[-1] for k in kernels(layer) if id(k) not in treated and "kernel" in k.name]
        if left:
            found.append(LeftLayer(layer.name, f"{type(layer).__name__}: TF-MOT leaves its {', '.join(left)}"))
    return found


def replaced(model: Any, layers: Iterable[Any], replace: Callable[[Any], Any]) -> Any:
    """Return ``model`` with ``replace(layer)`` for each of ``layers``, in nested models too; the others are shared."""
    import tf_keras

    chosen = {id(layer) for layer in layers}

    def clone(layer: Any) -> Any:
        if is_graph(layer):
            return tf_keras.models.clone_model(layer, clone_function=clone)
        return replace(layer) if id(layer) in chosen else layer

    return clone(model)


def zero_share(values: npt.NDArray[Any]) -> float:
    """Return the share of zeros."""
    return float((values == 0).mean()) if values.size else 0.0


def is_pruned(values: npt.NDArray[Any]) -> bool:
    """Whether a tensor has zeros that a step put there; nothing but zeros is how some weights begin."""
    return PRUNED <= zero_share(values) < 1


def is_clustered(values: npt.NDArray[Any]) -> bool:
    """Whether a tensor's weights, zeros apart, are few distinct values, each used at least twice on average."""
    rest = values[values != 0]
    distinct = len(np.unique(rest))
    return 0 < distinct <= _MOST_CLUSTERS and 2 * distinct <= rest.size


@contextmanager
def spared(layers: Iterable[Any]) -> Iterator[Any]:
    """While training, keep what earlier steps did to layers that this one does not treat; yields a callback for it.

    Zeros of pruned tensors are set again after every batch; layers with clustered tensors are not trained.
    """
    layers = list(layers)
    clustered = [layer for layer in layers if any(is_clustered(kernel.numpy()) for kernel in kernels(layer))]
    with set_meanwhile(clustered, "trainable", False):
        yield _zero_keeper([kernel for layer in layers for kernel in kernels(layer)])


def _zero_keeper(tensors: list[Any]) -> Any:
    import tf_keras

    pruned = [(tensor, tensor.numpy() != 0) for tensor in tensors if is_pruned(tensor.numpy())]

    class KeepZeros(tf_keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            for tensor, kept in pruned:
                tensor.assign(tensor.numpy() * kept)

    return KeepZeros()


def name_of(tensor: Any) -> str:
    """Return a variable's name without TensorFlow's suffix."""
    return str(tensor.name).split(":")[0]
