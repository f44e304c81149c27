"""Which layers of a model can have fewer channels, and the same architecture with fewer.

Channels that must be equal belong to one set: those that go through layers that keep them, such as BatchNormalization,
and those that meet in an addition. A set that holds what the model takes or answers keeps its width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.compression import RewriteSettings, not_chosen
from pipeline.compression._layer_graph import Entry, has_kernel, is_graph, rebuilt, without
from pipeline.errors import StepError
from pipeline.model_formats.model_files import first_line
from pipeline.results.record import LeftLayer

WIDTH_KEYS = {
    "Dense": "units",
    "Embedding": "output_dim",
    "LSTM": "units",
    "GRU": "units",
    "SimpleRNN": "units",
    **{f"Conv{n}D{kind}": "filters" for n in (1, 2, 3) for kind in ("", "Transpose")},
    **{f"SeparableConv{n}D": "filters" for n in (1, 2)},
}
"""The setting that tells how many channels a layer of this class gives."""

_KEEP = (
    {"Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "ThresholdedReLU", "Softmax", "BatchNormalization"}
    | {"LayerNormalization", "UnitNormalization", "Rescaling", "Masking", "ActivityRegularization", "Dropout"}
    | {"GaussianNoise", "GaussianDropout", "AlphaDropout", "DepthwiseConv1D", "DepthwiseConv2D"}
    | {f"SpatialDropout{n}D" for n in (1, 2, 3)}
    | {f"{span}{kind}Pooling{n}D" for span in ("", "Global") for kind in ("Max", "Average") for n in (1, 2, 3)}
    | {f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for n in (1, 2, 3)}
)
_MERGE = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
_OUTER = "the model takes or answers them"


@dataclass
class Channels:
    """The sets of channels of one model; a tensor's set is a number.

    Args:
        layers: path and layer of each that gives channels of its own, with their set.
        fixed: why a set keeps its width.
        sources: of a set whose width follows from others, as in a concatenation, these.
        widths: how many channels a set has.
    """

    layers: dict[str, tuple[Any, int]] = field(default_factory=dict)
    fixed: dict[int, str] = field(default_factory=dict)
    sources: dict[int, list[int]] = field(default_factory=dict)
    widths: dict[int, int] = field(default_factory=dict)
    left: list[LeftLayer] = field(default_factory=list)
    _parents: dict[int, int] = field(default_factory=dict)
    _takes: dict[str, list[int]] = field(default_factory=dict)

    def new(self, width: int, fixed: str = "", sources: Sequence[int] = ()) -> int:
        """Return a new set."""
        number = len(self.widths)
        self.widths[number] = width
        if fixed:
            self.fix(number, fixed)
        if sources:
            self.sources[number] = list(sources)
        return number

    def root(self, number: int) -> int:
        """Return the number that all sets joined with this one share."""
        while number in self._parents:
            number = self._parents[number]
        return number

    def join(self, first: int, second: int) -> None:
        """Make two sets of the same width one; a width of 1 that is broadcast stays by itself."""
        if self.widths[first] == self.widths[second] and self.root(first) != self.root(second):
            self._parents[self.root(second)] = self.root(first)

    def fix(self, number: int, reason: str) -> None:
        """Let a set keep its width."""
        self.fixed.setdefault(number, reason)

    def reasons(self) -> dict[int, str]:
        """Return why sets keep their width, by root; where a sum has a width that follows from others, these do too."""
        members: dict[int, list[int]] = defaultdict(list)
        for number in self.widths:
            members[self.root(number)].append(number)
        found = {self.root(number): reason for number, reason in reversed(self.fixed.items())}
        for root, numbers in members.items():
            if len(numbers) > 1 and any(number in self.sources for number in numbers):
                found.setdefault(root, "they are added to channels that were put together")
        pending = list(found)
        while pending:
            root = pending.pop()
            for source in (self.root(s) for number in members[root] for s in self.sources.get(number, [])):
                if source not in found:
                    found[source] = found[root]
                    pending.append(source)
        return found

    def takes(self, path: str, inputs: Sequence[int]) -> None:
        """Join what the calls of one layer take: its weights fit one width only."""
        for before, now in zip(self._takes.setdefault(path, list(inputs)), inputs, strict=False):
            self.join(before, now)


def narrowed(model: Any, settings: RewriteSettings, width: float) -> tuple[dict[str, int], list[LeftLayer]]:
    """Return the new width of each layer of ``model`` that can be narrowed, by path, and the layers that cannot.

    A layer has ``width`` of its channels then, rounded, and at least one. Those that the model answers keep their
    number, and are not named.
    """
    channels = Channels()
    ends = _trace(model, [channels.new(_last(tensor), _OUTER) for tensor in model.inputs], channels, "")
    for number in ends:
        channels.fix(number, _OUTER)
    for layer, number in channels.layers.values():
        if not settings.chooses(layer.name):
            channels.left.append(not_chosen(layer))
            channels.fix(number, f"layer {layer.name} is left out")
    reasons, named = channels.reasons(), {layer.layer for layer in channels.left}
    widths = {}
    for path, (layer, number) in channels.layers.items():
        reason = reasons.get(channels.root(number))
        if reason is None:
            widths[path] = max(1, int(channels.widths[number] * width + 0.5))
        elif reason != _OUTER and layer.name not in named:
            text = f"{type(layer).__name__}: keeps its {channels.widths[number]} channels: {reason}"
            channels.left.append(LeftLayer(path, text))
    return widths, channels.left


def narrow(model: Any, widths: dict[str, int]) -> Any:
    """Return a model of the same architecture with other widths, its weights drawn afresh."""

    def change(path: str, entry: Entry) -> list[Entry]:
        # A bridged Keras 3 model has zeros for initializers, with which nothing would ever be learned.
        zeros = [key for key, value in entry["config"].items() if key.endswith("_initializer") and _is_zeros(value)]
        config = without(entry["config"], *zeros)
        if entry["class_name"] == "Reshape" and -1 not in config["target_shape"]:
            config["target_shape"] = (*config["target_shape"][:-1], -1)
        if path in widths:
            config[WIDTH_KEYS[entry["class_name"]]] = widths[path]
        return [{**entry, "config": config}]

    try:
        return rebuilt(model, change)
    except (ValueError, TypeError) as error:  # whatever a layer says to an input of another width
        raise StepError(f"distillation cannot make this model narrower: {first_line(error)}") from error


def _is_zeros(initializer: Any) -> bool:
    return isinstance(initializer, dict) and initializer.get("class_name") == "Zeros"


def _trace(model: Any, inputs: Sequence[int], channels: Channels, prefix: str) -> list[int]:
    """Follow the channels from a model's inputs to its outputs, through nested models too; return their sets."""
    import tensorflow as tf

    known = dict(zip((str(id(tensor)) for tensor in model.inputs), inputs, strict=True))
    ends: dict[str, list[int]] = {}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.flat_input_ids:
                continue
            path, taken = prefix + node.layer.name, [known[key] for key in node.flat_input_ids]
            if node.layer.weights:
                channels.takes(path, taken)
            if path not in ends or not (is_graph(node.layer) or path in channels.layers):
                ends[path] = _given(node, taken, channels, path)
            outputs = tf.nest.flatten(node.outputs)
            known.update(zip((str(id(tensor)) for tensor in outputs), ends[path], strict=True))
    return [known[str(id(tensor))] for tensor in model.outputs]


def _given(node: Any, taken: list[int], channels: Channels, path: str) -> list[int]:
    """Return the sets of what a layer gives for the sets that it takes."""
    import tensorflow as tf

    layer, name = node.layer, type(node.layer).__name__
    outputs = [_last(tensor) for tensor in tf.nest.flatten(node.outputs)]
    if is_graph(layer):
        return _trace(layer, taken, channels, f"{path}/")
    if _keeps_order(layer) and len(outputs) == 1:
        if name in WIDTH_KEYS and len(taken) == 1:
            channels.layers[path] = (layer, channels.new(outputs[0], _grouped(layer)))
            for number in taken if _grouped(layer) else ():
                channels.fix(number, f"layer {layer.name} has groups")
            return [channels.layers[path][1]]
        if name == "Flatten" or (name == "Concatenate" and layer.axis in (-1, len(node.outputs.shape) - 1)):
            return [channels.new(outputs[0], sources=taken)]
        if name in _KEEP and len(taken) == 1:
            same = outputs[0] == channels.widths[taken[0]]  # not for a depthwise layer that multiplies them
            return taken if same else [channels.new(outputs[0], sources=taken)]
        if name == "Reshape" and outputs[0] == channels.widths[taken[0]] and -1 not in layer.target_shape:
            return taken
        if name in _MERGE or name == "Concatenate":
            return [_merged(taken, outputs[0], channels)]
    return _kept_whole(layer, taken, outputs, channels, path)


def _merged(taken: list[int], width: int, channels: Channels) -> int:
    widest = [number for number in taken if channels.widths[number] == width]
    for number in widest[1:]:
        channels.join(widest[0], number)
    return widest[0]


def _kept_whole(layer: Any, taken: list[int], outputs: list[int], channels: Channels, path: str) -> list[int]:
    """A layer that nothing is known of stays what it is, and so does all that it takes."""
    for number in taken:
        channels.fix(number, f"layer {layer.name} ({type(layer).__name__}) needs them")
    if has_kernel(layer) and all(one.layer != path for one in channels.left):
        channels.left.append(LeftLayer(path, f"{type(layer).__name__}: cannot be made narrower"))
    return [channels.new(width, f"layer {layer.name} ({type(layer).__name__}) gives them") for width in outputs]


def _keeps_order(layer: Any) -> bool:
    """Whether the channels are a layer's last dimension."""
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return False
    return not getattr(layer, "return_state", False)


def _grouped(layer: Any) -> str:
    return "a convolution in groups" if getattr(layer, "groups", 1) > 1 else ""


def _last(tensor: Any) -> int:
    return int(tensor.shape[-1] or 0) if len(tensor.shape) else 0
