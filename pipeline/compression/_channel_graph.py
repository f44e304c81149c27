"""Follows the channels through the graph of a tf_keras model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.compression._channel_rules import Call, NotUnderstood, described, rule_of
from pipeline.compression._channels import INPUTS, OUTPUTS, ChannelNumbers, Channels, Ids, Role
from pipeline.errors import StepError
from pipeline.results.record import LeftLayer


def read_channels(model: Any) -> Channels:
    """Return the channels of ``model``, a functional or sequential tf_keras model, channels last.

    Raises:
        StepError: for a model of another kind.
    """
    _check_kind(model)
    walk = _Walk({str(id(tensor)) for tensor in model.outputs})
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            walk.follow(node)
    for name in walk.ends:
        walk.numbers.freeze(walk.tensors[name], OUTPUTS)
    return Channels(walk.roles, list(walk.not_understood.values()), walk.numbers)


@dataclass
class _Walk:
    """What is known so far: the channels of each tensor, by Keras's number of it; ``ends`` are the model's outputs."""

    ends: set[str]
    numbers: ChannelNumbers = field(default_factory=ChannelNumbers)
    tensors: dict[str, Ids] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    not_understood: dict[str, LeftLayer] = field(default_factory=dict)

    def follow(self, node: Any) -> None:
        """Take note of one call of a layer."""
        if node.is_input:
            outputs = [self.numbers.new(_channel_count(shape), INPUTS) for shape in _output_shapes(node)]
        else:
            try:
                outputs = [self._by_rule(node)]
            except NotUnderstood as reason:
                outputs = self._frozen(node, str(reason))
        self.tensors.update(zip(node.flat_output_ids, outputs, strict=True))

    def _inputs(self, node: Any) -> list[Ids]:
        return [self.tensors[name] for name in node.flat_input_ids]

    def _by_rule(self, node: Any) -> Ids:
        layer = node.layer
        rule = rule_of(layer)
        if layer.name in self.not_understood:
            raise NotUnderstood("another call of it is left as it is")
        shapes = [tuple(tensor.shape) for tensor in node.keras_inputs]
        ids, role = rule(self.numbers, Call(layer, self._inputs(node), shapes, _output_shapes(node)))
        first = self.roles.setdefault(layer.name, role)
        if first is not role:
            _join(self.numbers, first, role)
        return ids

    def _frozen(self, node: Any, reason: str) -> list[Ids]:
        """Keep all that a layer reads and makes, in whichever of its calls."""
        layer = node.layer
        # A softmax at the very end is no more than the form of the outputs.
        last = self.ends.issuperset(node.flat_output_ids) and not layer.weights
        if not last:
            self.not_understood.setdefault(layer.name, LeftLayer(layer.name, f"{type(layer).__name__}: {reason}"))
        role = self.roles.pop(layer.name, None)
        known = [ids for axes in role.weights.values() for ids in axes.values()] if role else []
        for ids in [*self._inputs(node), *known]:
            self.numbers.freeze(ids, OUTPUTS if last else f"they reach {described(layer)}: {reason}")
        return [self.numbers.new(_channel_count(s), f"they come from {described(layer)}") for s in _output_shapes(node)]


def _check_kind(model: Any) -> None:
    if not getattr(model, "_is_graph_network", False):
        raise StepError(
            f"channel_pruning needs the graph of a functional or a sequential model; {model.name} is a "
            f"{type(model).__name__} without one"
        )
    first = [layer.name for layer in model.layers if getattr(layer, "data_format", "") == "channels_first"]
    if first:
        raise StepError(
            f"channel_pruning removes channels from the last axis, and these layers have channels first: "
            f"{', '.join(first)}; expected data_format channels_last"
        )


def _join(numbers: ChannelNumbers, first: Role, again: Role) -> None:
    """Unite what a layer does in one call with what it does in another: its weights are the same."""
    for weight, axes in again.weights.items():
        for axis, ids in axes.items():
            numbers.unite(first.weights[weight][axis], ids)
    for key, ids in again.sizes.items():
        numbers.unite(first.sizes[key], ids)
    first.work.extend(again.work)


def _channel_count(shape: tuple[int | None, ...]) -> int:
    return shape[-1] or 0 if shape else 0


def _output_shapes(node: Any) -> list[tuple[int | None, ...]]:
    import tensorflow as tf

    return [tuple(tensor.shape) for tensor in tf.nest.flatten(node.outputs)]
