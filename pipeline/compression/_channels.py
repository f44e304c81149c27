"""Which channels of a model belong together, so that one can be removed from everything that makes or reads it.

Every filter and unit has a number, and every tensor the numbers of the channels along its last axis; what is added
position by position is one class of numbers, which goes or stays as one. A class that reaches something that is not
understood is frozen, with the reason. Fang et al., "DepGraph: Towards Any Structural Pruning", 2023, group
parameters for the same end; here it is done on the layers of a Keras graph.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.results.record import LeftLayer

Ids = npt.NDArray[np.int64]
Kept = npt.NDArray[np.bool_]

INPUTS = "its channels are the model's inputs"
OUTPUTS = "its channels are the model's outputs"


class ChannelNumbers:
    """Hands out the numbers of channels, and keeps which of them are one class and which must stay."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self.reasons: dict[int, str] = {}

    def new(self, count: int, frozen: str = "") -> Ids:
        """Return ``count`` numbers that no tensor has yet; they must stay when a reason is given."""
        first = len(self._parents)
        ids = np.arange(first, first + count)
        self._parents.extend(range(first, first + count))
        if frozen:
            self.freeze(ids, frozen)
        return ids

    def unite(self, first: Ids, second: Ids) -> None:
        """Make the channels at the same positions one class each."""
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            low, high = sorted((self.root(one), self.root(other)))
            self._parents[high] = low

    def freeze(self, ids: Ids, reason: str) -> None:
        """Keep the classes of ``ids``; of several reasons the first counts, but being an output above all."""
        for channel in ids.tolist():
            if reason == OUTPUTS:
                self.reasons[channel] = reason
            else:
                self.reasons.setdefault(channel, reason)

    def root(self, channel: int) -> int:
        """Return the smallest number of the class that ``channel`` is in."""
        while self._parents[channel] != channel:
            self._parents[channel] = self._parents[self._parents[channel]]
            channel = self._parents[channel]
        return channel

    def roots(self) -> Ids:
        """Return the class of every channel, [channels]."""
        return np.array([self.root(channel) for channel in range(len(self._parents))], np.int64)


@dataclass(frozen=True)
class Work:
    """Multiply-accumulate operations: ``factor`` for each combination of kept channels; None where a size is open."""

    factor: int | None
    channels: tuple[Ids, ...] = ()


@dataclass
class Role:
    """What a layer does with channels.

    Args:
        layer: the Keras layer.
        weights: for each weight, by its attribute, the channels along those of its axes that have any.
        reads: for each weight that multiplies the input, its axis along the input's channels.
        sizes: the keys of the layer's configuration that count channels, or end with their count.
        made: the channels that the layer makes, and the weight and axis that make them.
        work: what it computes.
        kept: why the layer's own units stay, where its rule knows of no way to remove them.
    """

    layer: Any
    weights: dict[str, dict[int, Ids]] = field(default_factory=dict)
    reads: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, Ids] = field(default_factory=dict)
    made: tuple[Ids, str, int] | None = None
    work: list[Work] = field(default_factory=list)
    kept: str = ""

    @property
    def name(self) -> str:
        """The layer's name."""
        return str(self.layer.name)

    @property
    def filters(self) -> Ids:
        """The channels that the layer makes, none for one that passes on what it is given."""
        return self.made[0] if self.made else np.zeros(0, np.int64)


@dataclass(frozen=True)
class Channels:
    """The channels of one model.

    Args:
        roles: what each layer that is understood does, by its name, in the order of the graph.
        not_understood: the other layers, with the reason.
        numbers: the classes.
    """

    roles: dict[str, Role]
    not_understood: list[LeftLayer]
    numbers: ChannelNumbers

    @cached_property
    def roots(self) -> Ids:
        """The class of every channel, [channels]."""
        return self.numbers.roots()

    @cached_property
    def reasons(self) -> dict[int, str]:
        """Why classes must stay."""
        found: dict[int, str] = {}
        for channel, reason in self.numbers.reasons.items():
            root = int(self.roots[channel])
            found[root] = OUTPUTS if OUTPUTS in (reason, found.get(root)) else found.get(root, reason)
        return found

    @property
    def makers(self) -> list[Role]:
        """The layers that make channels."""
        return [role for role in self.roles.values() if role.made]

    @cached_property
    def groups(self) -> list[Ids]:
        """The classes that may go, [classes] for each set of layers that make them together."""
        members: dict[int, list[str]] = {}
        for role in self.makers:
            for root in self.roots[role.filters].tolist():
                members.setdefault(root, []).append(role.name)
        found: dict[tuple[str, ...], list[int]] = {}
        for root, names in members.items():
            if root not in self.reasons:
                found.setdefault(tuple(names), []).append(root)
        return [np.array(roots, np.int64) for roots in found.values()]

    def frozen(self, reasons: dict[int, str]) -> Channels:
        """Return the same channels with more of them frozen: the reason of each."""
        for channel, reason in reasons.items():
            self.numbers.freeze(np.array([channel]), reason)
        return Channels(self.roles, self.not_understood, self.numbers)

    def all_kept(self) -> Kept:
        """Return that every channel stays: true for each class, at its number."""
        return np.ones(len(self.roots), bool)

    def mask(self, ids: Ids, kept: Kept) -> Kept:
        """Return which of ``ids`` stay when the classes of ``kept`` do."""
        mask: Kept = kept[self.roots[ids]]
        return mask

    def filter_count(self, kept: Kept) -> int:
        """Return how many filters and units stay in the layers that may lose some."""
        return sum(int(self.mask(role.filters, kept).sum()) for role in self.makers if self._loses(role.filters))

    def macs(self, kept: Kept) -> int | None:
        """Return the multiply-accumulate operations of one sample; None when the model leaves sizes open.

        Convolutions, dense and recurrent layers count, and of layers that are not understood nothing.
        """
        total = 0
        for work in (work for role in self.roles.values() for work in role.work):
            if work.factor is None:
                return None
            total += work.factor * math.prod(int(self.mask(ids, kept).sum()) for ids in work.channels)
        return total

    def left(self) -> list[LeftLayer]:
        """Return the layers whose weights stay as they are, or whose filters do, with the reason."""
        found = [LeftLayer(role.name, reason) for role in self.roles.values() if (reason := self._why_left(role))]
        return [*self.not_understood, *found]

    def _why_left(self, role: Role) -> str:
        if not role.layer.weights:
            return ""
        kind = type(role.layer).__name__
        reason = role.kept or self._why_filters_stay(role.filters)
        if reason and reason != OUTPUTS:
            return f"{kind}: {reason}"
        axes = [ids for axes in role.weights.values() for ids in axes.values()]
        if any(self._loses(ids) for ids in axes):
            return ""
        reasons = Counter(self.reasons[root] for ids in axes for root in self.roots[ids].tolist())
        return f"{kind}: {reasons.most_common(1)[0][0] if reasons else 'it has no channels'}"

    def _why_filters_stay(self, filters: Ids) -> str:
        if not filters.size or self._loses(filters):
            return ""
        # What the layer's own filters are says more than what else is in their classes.
        own = (self.numbers.reasons.get(int(channel), "") for channel in filters)
        return next((reason for reason in own if reason), self.reasons[int(self.roots[filters[0]])])

    def _loses(self, ids: Ids) -> bool:
        return any(root not in self.reasons for root in self.roots[ids].tolist())
