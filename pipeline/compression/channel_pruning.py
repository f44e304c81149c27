"""Channel pruning: whole filters go, with everything that makes or reads them, and a smaller ordinary model stays.

Sources: H. Li et al., "Pruning Filters for Efficient ConvNets", 2017 (``l1``); Z. Liu et al., "Learning Efficient
Convolutional Networks through Network Slimming", 2017 (``bn_scale``); P. Molchanov et al., "Importance Estimation for
Neural Network Pruning", 2019 (``taylor``); G. Fang et al., "DepGraph: Towards Any Structural Pruning", 2023, for what
belongs together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.compression import Report, not_chosen
from pipeline.compression._channel_choice import Cost, Shape, chosen, least_kept
from pipeline.compression._channel_graph import read_channels
from pipeline.compression._channel_rules import described
from pipeline.compression._channel_scores import Scores, bn_scores, l1_scores, taylor_scores, without_scale
from pipeline.compression._channels import Channels
from pipeline.compression._slicing import check_removal, without_channels
from pipeline.errors import StepError
from pipeline.results.record import LeftLayer
from pipeline.training.fine_tuning import FineTunedSettings, fine_tune
from pipeline.training.training_data import TrainingData

_CHECKED_SAMPLES = 8


class Settings(FineTunedSettings):
    """How many channels go, which, and in how many iterations.

    Exactly one of ``ratio``, the share of the filters and units that can go which shall go, and ``macs``, the share of
    the model's multiply-accumulate operations that may stay. Either is met within one block: channels go
    ``round_to`` at a time, so that a layer keeps a multiple of it and ``min_channels`` at least; kernels compute 8 or
    16 channels at once, and a layer of 9 is no faster than one of 16.

    ``criterion``: ``l1``, ``bn_scale``, or ``taylor``, whose gradients are taken over ``score_samples`` training
    samples, and which goes by what it costs in loss for each filter or MAC that it saves, since late layers have many
    unimportant channels that save little. Channels go in ``iterations``, each of which leaves the same share of what
    it found, and scores are taken anew in each. ``epochs`` are those of the whole step: every iteration trains
    ``epochs // iterations`` of them, and the last one the rest too.

    ``include`` and ``exclude`` choose the layers that may lose filters; layers that read them shrink in any case.
    """

    criterion: Literal["l1", "bn_scale", "taylor"] = "taylor"
    ratio: float | None = Field(None, gt=0, lt=1)
    macs: float | None = Field(None, gt=0, lt=1)
    min_channels: int = Field(4, ge=1, le=65536)
    round_to: int = Field(8, ge=1, le=256)
    iterations: int = Field(1, ge=1, le=100)
    score_samples: int = Field(1024, ge=1, le=100_000)

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if (self.ratio is None) == (self.macs is None):
            raise ValueError("expected exactly one of ratio and macs")
        if self.epochs < self.iterations:
            raise ValueError(
                f"expected at least one epoch for each iteration; epochs is {self.epochs}, iterations {self.iterations}"
            )
        return self

    @property
    def shape(self) -> Shape:
        """What a layer may be left with."""
        return Shape(self.min_channels, self.round_to)

    @property
    def share_kept(self) -> float:
        """The share of filters, or of MACs, that stays at most."""
        if self.macs is not None:
            return self.macs
        assert self.ratio is not None
        return 1 - self.ratio

    def epochs_of(self, iteration: int) -> int:
        """Return how many epochs the iteration, counted from 0, trains."""
        each, rest = divmod(self.epochs, self.iterations)
        return each + (rest if iteration == self.iterations - 1 else 0)


def untreated(model: Any, settings: Settings) -> list[LeftLayer]:
    """Return the layers that lose nothing, and those that make others lose nothing, with the reason.

    Raises:
        StepError: if no channel of the model can go, or too few for what is asked.
    """
    channels = _channels(model, settings)
    _check_goal(channels, settings)
    return _left(channels, settings)


def rewrite(model: Any, settings: Settings, data: TrainingData, report: Report) -> Any:
    """Return ``model`` (tf_keras) with fewer channels, fine-tuned.

    Raises:
        StepError: as ``untreated`` does, and if there are no labels that the scores or the training need.
    """
    channels = _channels(model, settings)
    _check_goal(channels, settings)
    before = _amount(channels, settings)(channels.all_kept())
    sizes, trained = _sizes(model, channels), 0
    for iteration in range(settings.iterations):
        most = int(before * settings.share_kept ** ((iteration + 1) / settings.iterations))
        model = _pruned(model, settings, most, data)
        epochs = settings.epochs_of(iteration)
        part = _Part(report, trained / settings.epochs, epochs / settings.epochs)
        fine_tune(model, data, settings.model_copy(update={"epochs": epochs}), part)
        trained += epochs
    _tell(sizes, _sizes(model, _channels(model, settings)), settings, report)
    return model


def _channels(model: Any, settings: Settings) -> Channels:
    channels = read_channels(model)
    unscored = without_scale(channels) if settings.criterion == "bn_scale" else {}
    excluded = {
        channel: f"{described(role.layer)} is left out by include or exclude"
        for role in channels.makers
        if not settings.chooses(role.name)
        for channel in role.filters.tolist()
    }
    return channels.frozen({**unscored, **excluded})


def _left(channels: Channels, settings: Settings) -> list[LeftLayer]:
    excluded = {role.name: role.layer for role in channels.makers if not settings.chooses(role.name)}
    return [not_chosen(excluded[left.layer]) if left.layer in excluded else left for left in channels.left()]


def _amount(channels: Channels, settings: Settings) -> Cost:
    """Return what counts how much stays: MACs, or filters of the layers that may lose some."""
    if settings.ratio is not None:
        return channels.filter_count
    if channels.macs(channels.all_kept()) is None:
        raise StepError("macs needs a model whose inputs have fixed sizes, or nobody can count them; ratio does not")
    return lambda kept: channels.macs(kept) or 0


def _check_goal(channels: Channels, settings: Settings) -> None:
    """Raise StepError when nothing can go, or not as much as is asked: that depends on no score."""
    shape, amount = settings.shape, _amount(channels, settings)
    least = least_kept(channels, shape)
    limits = f"with min_channels {shape.min_channels} and round_to {shape.round_to}"
    if least.all():
        why = _named(channels, settings) if not channels.groups else f"no layer is wide enough {limits}"
        raise StepError(f"channel_pruning can remove nothing from this model: {why}")
    share = amount(least) / amount(channels.all_kept())
    if share > settings.share_kept:
        asked, unit = ("macs", "MACs") if settings.ratio is None else ("ratio", "filters")
        kept = _named(channels, settings) or "none"
        raise StepError(
            f"{asked} is {getattr(settings, asked):g}, but {share:.3f} of the {unit} stay {limits} when all goes that "
            f"may; layers left as they are: {kept}"
        )


def _named(channels: Channels, settings: Settings) -> str:
    return "; ".join(f"{left.layer}: {left.reason}" for left in _left(channels, settings))


def _pruned(model: Any, settings: Settings, most: int, data: TrainingData) -> Any:
    """Return ``model`` with as many channels less as bring it down to ``most``; itself when it is there already."""
    channels = _channels(model, settings)
    scores = _scores(model, channels, settings, data)
    # Only Taylor's scores are amounts of one thing, of which a share can be bought.
    by_cost = settings.criterion == "taylor"
    kept = chosen(channels, scores, settings.shape, _amount(channels, settings), most, by_cost)
    smaller = without_channels(model, channels, kept)
    check_removal(model, smaller, channels, kept, data.inputs(data.fixed_indices(_CHECKED_SAMPLES)))
    return smaller


def _scores(model: Any, channels: Channels, settings: Settings, data: TrainingData) -> Scores:
    if settings.criterion == "l1":
        return l1_scores(channels)
    if settings.criterion == "bn_scale":
        return bn_scores(channels)
    return taylor_scores(model, channels, data, settings.score_samples)


@dataclass(frozen=True)
class _Sizes:
    """What a model has: parameters, MACs where they can be counted, and filters in each layer that makes some."""

    parameters: int
    macs: int | None
    filters: dict[str, int]


def _sizes(model: Any, channels: Channels) -> _Sizes:
    filters = {role.name: role.filters.size for role in channels.makers}
    return _Sizes(model.count_params(), channels.macs(channels.all_kept()), filters)


def _tell(before: _Sizes, after: _Sizes, settings: Settings, report: Report) -> None:
    fewer = {name: (count, after.filters[name]) for name, count in before.filters.items()}
    fewer = {name: counts for name, counts in fewer.items() if counts[0] > counts[1]}
    macs = f"MACs {before.macs:,} → {after.macs:,}, " if before.macs and after.macs else ""
    report.note(
        f"channels removed by {settings.criterion}: {macs}parameters {before.parameters:,} → {after.parameters:,}; "
        f"filters {', '.join(f'{name} {was} → {now}' for name, (was, now) in fewer.items())}"
    )


@dataclass(frozen=True)
class _Part:
    """Reports a part of the whole: from ``start``, ``share`` of it."""

    report: Report
    start: float
    share: float

    def __call__(self, fraction: float, text: str) -> None:
        self.report(self.start + self.share * fraction, text)

    def note(self, text: str) -> None:
        self.report.note(text)

    def leave(self, layer: str, reason: str, chosen: bool = False) -> None:
        self.report.leave(layer, reason, chosen)
