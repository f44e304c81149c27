"""Which channels go: those of the lowest scores, in whole blocks, until a goal is reached."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.compression._channel_scores import Scores
from pipeline.compression._channels import Channels, Ids, Kept


@dataclass(frozen=True)
class Shape:
    """What a layer may be left with: at least ``min_channels``, and a multiple of ``round_to``."""

    min_channels: int
    round_to: int

    def removable(self, count: int) -> int:
        """Return how many of ``count`` channels may go."""
        least = -(-self.min_channels // self.round_to) * self.round_to
        return max(0, count - least)


Cost = Callable[[Kept], int]


def chosen(channels: Channels, scores: Scores, shape: Shape, cost: Cost, most: int, by_cost: bool = False) -> Kept:
    """Return which classes stay once the lowest blocks went that bring ``cost`` down to ``most``.

    A block is what brings a group of layers to the next multiple, and goes by its mean score, or with ``by_cost`` by
    its score for each unit of the cost that it saves. When all blocks do not suffice, all go.
    """
    ranked: list[tuple[float, Ids]] = []
    for group in channels.groups:
        saved = cost(channels.all_kept()) - cost(_without(channels, [group[:1]])) if by_cost else 1
        ranked += [(float(scores[block].mean()) / max(saved, 1), block) for block in _blocks(group, scores, shape)]
    blocks = [block for _, block in sorted(ranked, key=lambda entry: (entry[0], int(entry[1][0])))]
    # The cost falls with every block.
    enough = bisect.bisect_left(range(len(blocks)), -most, key=lambda count: -cost(_without(channels, blocks[:count])))
    return _without(channels, blocks[:enough])


def least_kept(channels: Channels, shape: Shape) -> Kept:
    """Return what stays when everything goes that may."""
    return chosen(channels, np.zeros(len(channels.roots)), shape, lambda kept: 1, 0)


def _blocks(group: Ids, scores: Scores, shape: Shape) -> list[Ids]:
    """Return what may go of a group, the lowest scores first: up to a multiple, then as many as that at a time."""
    order = group[np.argsort(scores[group], kind="stable")]
    bounds = [0, *range(len(group) % shape.round_to or shape.round_to, shape.removable(len(group)) + 1, shape.round_to)]
    return [order[start:end] for start, end in itertools.pairwise(bounds)]


def _without(channels: Channels, blocks: Sequence[Ids]) -> Kept:
    kept = channels.all_kept()
    for block in blocks:
        kept[block] = False
    return kept
