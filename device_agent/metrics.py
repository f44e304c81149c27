"""Metrics: one function each, named as in YAML; numpy only.

A metric takes outputs [samples, …] and labels [samples, …] and returns one float32 value a sample; the score is their
mean.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Metric = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float32]]


class MetricMismatch(ValueError):
    """Outputs or labels that the metric is not defined for; the text has their shapes and what is allowed."""


def find(name: str) -> Metric:
    """Return the metric called ``name``.

    Raises:
        MetricMismatch: if there is none, naming those that exist.
    """
    if name not in known():
        raise MetricMismatch(f'unknown metric "{name}"; known: {", ".join(known())}')
    metric: Metric = globals()[name]
    return metric


def known() -> list[str]:
    """Return the names of the metrics: the public functions of this module but these two."""
    functions = [name for name, value in globals().items() if isinstance(value, FunctionType)]
    return sorted(name for name in functions if not name.startswith("_") and name not in ("find", "known"))


def top1(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float32]:
    """Return 1 where the class with the largest output is the label, else 0.

    Accuracy as in the ImageNet Large Scale Visual Recognition Challenge (Russakovsky et al., IJCV 2015, section 4.1),
    given as the share that is right rather than the error. Of equal outputs the lowest class counts.

    Args:
        outputs: [samples, classes], logits or probabilities.
        labels: [samples], integers from 0 to classes - 1.

    Raises:
        MetricMismatch: if they have other shapes or types.
    """
    return _in_top("top1", 1, outputs, labels)


def top5(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float32]:
    """Return 1 where the label is among the five classes with the largest outputs, else 0; otherwise as ``top1``."""
    return _in_top("top5", 5, outputs, labels)


def _in_top(name: str, k: int, outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float32]:
    _check(name, k, outputs, labels)
    # Stable, so that of equal outputs the lowest class comes first on every numpy.
    best = np.argsort(-outputs.astype(np.float64), axis=1, kind="stable")[:, :k]
    found: NDArray[np.float32] = (best == labels.astype(np.int64)[:, None]).any(axis=1).astype(np.float32)
    return found


def _check(name: str, k: int, outputs: NDArray[Any], labels: NDArray[Any]) -> None:
    shapes = f"outputs {list(outputs.shape)} and labels {list(labels.shape)}"
    if outputs.ndim != 2 or labels.shape != outputs.shape[:1]:
        raise MetricMismatch(f"{name} got {shapes}; expected [samples, classes] and [samples]")
    if outputs.shape[1] < k:
        raise MetricMismatch(f"{name} got {shapes}; expected at least {k} classes")
    if labels.dtype.kind not in "iu":
        raise MetricMismatch(f"{name} got labels of type {labels.dtype}; expected integers")
    if labels.size and not 0 <= labels.min() <= labels.max() < outputs.shape[1]:
        found = f"{labels.min()} to {labels.max()}"
        raise MetricMismatch(f"{name} got labels {found}; expected 0 to {outputs.shape[1] - 1}")
