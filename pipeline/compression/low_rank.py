"""Low-rank decomposition: a Dense or Conv2D layer becomes two that follow one another and have fewer weights.

Sources: see ``_factors``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.compression import Report, not_chosen
from pipeline.compression._factors import Array, Factors, common_energy, factors, kept
from pipeline.compression._layer_graph import Entry, check_graph, has_kernel, layers_of, rebuilt, without
from pipeline.errors import StepError
from pipeline.results.record import LeftLayer
from pipeline.training.fine_tuning import FineTunedSettings, fine_tune
from pipeline.training.training_data import TrainingData

_NO_CONVOLUTIONS = "convolution is none"


class Settings(FineTunedSettings):
    """How far the layers go down is told by exactly one of three.

    ``rank`` is the rank of each layer; ``energy`` the share of the squared singular values that each layer keeps;
    ``size`` the share of their weights that the layers keep together, at one energy for all. ``convolution`` is how a
    Conv2D of more than 1x1 is decomposed: ``spatial``, a column and then a row; ``channel``, itself with fewer
    filters and then a 1x1; ``none`` leaves every Conv2D. Nothing is trained with ``epochs`` 0, which needs no labels.
    """

    rank: int | None = Field(None, ge=1, le=65536)
    energy: float | None = Field(None, gt=0, le=1)
    size: float | None = Field(None, gt=0, lt=1)
    convolution: Literal["spatial", "channel", "none"] = "spatial"
    epochs: int = Field(3, ge=0, le=1000)

    @model_validator(mode="after")
    def _one_measure(self) -> Settings:
        if sum(value is not None for value in (self.rank, self.energy, self.size)) != 1:
            raise ValueError("expected exactly one of rank, energy and size")
        return self


@dataclass(frozen=True)
class Split:
    """What becomes of one layer: ``suffix`` tells the new one before it from it, ``rank`` is the width between them."""

    suffix: str
    rank: int
    factors: Factors

    @property
    def kernels(self) -> tuple[Array, Array]:
        """The kernels of both."""
        return self.factors.kernels(self.rank)


def untreated(model: Any, settings: Settings) -> list[LeftLayer]:
    """Return the layers with kernels that would not get smaller, or that no decomposition is known for here.

    Raises:
        StepError: if the model has no graph of layers, no layer gets smaller, or ``size`` is out of reach.
    """
    return plan(model, settings)[1]


def rewrite(model: Any, settings: Settings, data: TrainingData, report: Report) -> Any:
    """Return ``model`` (tf_keras) with layers of low rank, fine-tuned unless ``epochs`` is 0.

    Raises:
        StepError: as ``untreated``, or if it is to be fine-tuned and there are no labels.
    """
    splits, _ = plan(model, settings)
    smaller = decomposed(model, splits)
    report.note(_summary(splits))
    if settings.epochs:
        fine_tune(smaller, data, settings, report)
    return smaller


def outline(model: Any, settings: Settings) -> Any:
    """Return ``model`` with layers of low rank, not fine-tuned; raises as ``untreated``."""
    return decomposed(model, plan(model, settings)[0])


def decomposed(model: Any, splits: dict[str, Split]) -> Any:
    """Return ``model`` with the layers at the paths of ``splits`` made two each, and all weights set."""
    smaller = rebuilt(model, lambda path, entry: _entries(entry, splits[path]) if path in splits else [entry])
    before = dict(layers_of(model))
    bases = {path + split.suffix: split for path, split in splits.items()}
    for path, layer in layers_of(smaller):
        if path in bases:
            layer.set_weights([bases[path].kernels[0]])
        elif path in splits:
            _, *bias = before[path].get_weights()
            layer.set_weights([splits[path].kernels[1], *bias])
        else:
            layer.set_weights(before[path].get_weights())
    return smaller


def plan(model: Any, settings: Settings) -> tuple[dict[str, Split], list[LeftLayer]]:
    """Return the layers to split, by their paths, and those that stay as they are; raises as ``untreated``."""
    check_graph(model)
    chosen: dict[str, Factors] = {}
    left: list[LeftLayer] = []
    layers = dict(layers_of(model))
    for path, layer in layers.items():
        if reason := _obstacle(layer, settings):
            left.append(LeftLayer(path, f"{type(layer).__name__}: {reason}", chosen=reason == _NO_CONVOLUTIONS))
        elif not settings.chooses(layer.name):
            left += [not_chosen(layer)] if has_kernel(layer) else []
        elif _is_candidate(layer):
            spatial = settings.convolution == "spatial"
            chosen[path] = factors(layer.get_weights()[0], "spatial" if spatial else "channel")
    splits = {}
    for path, rank in _ranks(chosen, settings).items():
        if chosen[path].parameters(rank) < chosen[path].full:
            splits[path] = Split(_suffix(path, layers), rank, chosen[path])
        else:
            left.append(LeftLayer(path, f"{type(layers[path]).__name__}: {_no_gain(chosen[path], rank)}"))
    if not splits:
        named = "; ".join(f"{layer.layer}: {layer.reason}" for layer in left) or "the model has no kernels"
        raise StepError(f"low_rank can make no layer smaller: {named}")
    return splits, left


def _is_candidate(layer: Any) -> bool:
    import tf_keras

    # Not their subclasses: a Conv2DTranspose is a Conv2D to Python.
    return type(layer) in (tf_keras.layers.Dense, tf_keras.layers.Conv2D)


def _obstacle(layer: Any, settings: Settings) -> str:
    """Return why a layer with a kernel cannot be decomposed, whatever the rank; nothing when it can."""
    if not has_kernel(layer) or not settings.chooses(layer.name):
        return ""
    if not _is_candidate(layer):
        return "only Dense and Conv2D are decomposed"
    if layer.kernel_constraint is not None:
        return f"its kernel's constraint {type(layer.kernel_constraint).__name__} would not hold for a product of two"
    if len(layer.kernel.shape) == 4 and settings.convolution == "none":
        return _NO_CONVOLUTIONS
    groups = getattr(layer, "groups", 1)
    return f"has {groups} groups, whose kernels are not one matrix" if groups > 1 else ""


def _ranks(chosen: dict[str, Factors], settings: Settings) -> dict[str, int]:
    if settings.rank is not None:
        return {path: min(settings.rank, len(each.values)) for path, each in chosen.items()}
    energy = settings.energy
    if energy is None:
        assert settings.size is not None
        energy = _energy_for_size(list(chosen.values()), settings.size)
    return {path: each.rank_for(energy) for path, each in chosen.items()}


def _energy_for_size(found: list[Factors], size: float) -> float:
    full, least = sum(each.full for each in found), kept(found, 0)
    if least > size * full:
        raise StepError(
            f"size is {size:g}, but even at rank 1 these layers keep {least:,} of {full:,} weights; expected at least "
            f"{least / full:.4f}"
        )
    return common_energy(found, size)


def _no_gain(found: Factors, rank: int) -> str:
    parameters = found.parameters(rank)
    return f"at rank {rank} of {len(found.values)} it would have {parameters:,} weights instead of {found.full:,}"


def _suffix(path: str, layers: dict[str, Any]) -> str:
    """Return what makes the path of this layer one that no layer has: a step before this one may have split it too."""
    suffix = "_basis"
    while path + suffix in layers:
        suffix += "_"
    return suffix


def _summary(splits: dict[str, Split]) -> str:
    ranks = ", ".join(
        f"{path} {split.rank} of {len(split.factors.values)} ({split.factors.energy(split.rank):.1%} of the energy)"
        for path, split in splits.items()
    )
    before = sum(split.factors.full for split in splits.values())
    after = sum(split.factors.parameters(split.rank) for split in splits.values())
    return f"ranks: {ranks}; weights of these layers: {after:,} instead of {before:,}"


def _entries(entry: Entry, split: Split) -> list[Entry]:
    config = without(entry["config"], "kernel_initializer")
    first = {
        **config,
        "name": config["name"] + split.suffix,
        "activation": "linear",
        "use_bias": False,
        "bias_regularizer": None,
        "bias_constraint": None,
        "activity_regularizer": None,
        **_first(config, split),
    }
    second = {**without(config, "batch_input_shape"), **_second(config, split)}
    return [{**entry, "config": first}, {**entry, "config": second}]


def _first(config: dict[str, Any], split: Split) -> dict[str, Any]:
    if "units" in config:
        return {"units": split.rank}
    if split.factors.scheme == "channel":
        return {"filters": split.rank}
    column = {key: (config[key][0], 1) for key in ("kernel_size", "strides", "dilation_rate")}
    return {"filters": split.rank, **column}


def _second(config: dict[str, Any], split: Split) -> dict[str, Any]:
    if "units" in config:
        return {}
    if split.factors.scheme == "channel":
        return {"kernel_size": (1, 1), "strides": (1, 1), "dilation_rate": (1, 1), "padding": "valid"}
    return {key: (1, config[key][1]) for key in ("kernel_size", "strides", "dilation_rate")}
