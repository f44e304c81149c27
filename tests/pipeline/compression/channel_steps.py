"""Runs channel pruning on tiny models: ``python channel_steps.py FOLDER``; prints what it did as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras
from tf_keras import layers

from pipeline.compression import channel_pruning
from pipeline.compression._channel_graph import read_channels
from pipeline.compression._slicing import check_removal, without_channels
from pipeline.compression.channel_pruning import Settings
from pipeline.errors import StepError
from pipeline.training.training_data import TrainingData


class Notes:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.notes: list[str] = []

    def __call__(self, fraction: float, text: str) -> None:
        self.fractions.append(fraction)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def leave(self, layer: str, reason: str, chosen: bool = False) -> None:
        raise AssertionError(f"{layer}: {reason}")


def data(folder: Path, labels: bool = True) -> TrainingData:
    random = np.random.default_rng(0)
    np.save(folder / "x.npy", random.random((64, 8, 8, 1), dtype=np.float32))
    np.save(folder / "y.npy", random.integers(0, 4, 64))
    return TrainingData(folder / "x.npy", folder / "y.npy" if labels else None, 1.0, 0.0, 0, "litert")


def network(first: int = 16, second: int = 24, size: int | None = 8, **more: Any) -> Any:
    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.Input((size, size, 1))
    x = layers.Conv2D(first, 3, padding="same", name="first", **more)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(second, 3, padding="same", activation="relu", name="second", **more)(x)
    return tf_keras.Model(inputs, layers.Dense(4, name="head")(layers.GlobalAveragePooling2D()(x)))


def kept_by(model: Any, given: TrainingData, **settings: Any) -> dict[str, Any]:
    """Return what stays of a model after one round without any training."""
    asked = Settings(**settings)
    channels = channel_pruning._channels(model, asked)
    before = channel_pruning._amount(channels, asked)(channels.all_kept())
    smaller = channel_pruning._pruned(model, asked, int(before * asked.share_kept), given)
    after = channel_pruning._channels(smaller, asked)
    share = channel_pruning._amount(after, asked)(after.all_kept())
    filters = {role.name: int(role.filters.size) for role in after.makers}
    return {"filters": filters, "share": share / before, "model": smaller}


def goals(given: TrainingData) -> list[dict[str, Any]]:
    found = []
    for criterion in ("l1", "taylor"):
        for round_to in (1, 8):
            for goal in ({"macs": 0.3}, {"macs": 0.6}, {"ratio": 0.4}):
                asked = {"criterion": criterion, "round_to": round_to, "min_channels": 3, **goal}
                result = kept_by(network(), given, **asked)
                found.append({**asked, "filters": result["filters"], "share": result["share"]})
    return found


def ragged(given: TrainingData) -> dict[str, int]:
    """Layers whose widths are no multiples: what is lost first brings them to one."""
    found: dict[str, int] = kept_by(network(13, 21), given, criterion="l1", ratio=0.2, round_to=8)["filters"]
    return found


def least_important(given: TrainingData) -> dict[str, bool]:
    """Make one filter of the first layer matter least by each criterion, and see whether just that one is gone."""
    found = {}
    for criterion in ("l1", "bn_scale", "taylor"):
        model = network()
        kernel, following = model.get_layer("first").kernel, model.get_layer("second").kernel
        norm = model.get_layer("norm")
        if criterion == "l1":
            kernel.assign(kernel.numpy() * np.where(np.arange(16) == 5, 1e-3, 1))
        elif criterion == "bn_scale":
            norm.gamma.assign(np.where(np.arange(16) == 5, 1e-3, 1))
        else:
            following.assign(following.numpy() * np.where(np.arange(16) == 5, 1e-6, 1)[:, None])
        # A mark in each channel: what is left tells what was taken out.
        norm.beta.assign(np.arange(16) * 0.01)
        asked = {"criterion": criterion, "ratio": 0.02, "round_to": 1, "include": ["first"]}
        smaller = kept_by(model, given, **asked)["model"]
        marks = np.round(smaller.get_layer("norm").beta.numpy() * 100).astype(int).tolist()
        found[criterion] = marks == [mark for mark in range(16) if mark != 5]
    return found


def whole_step(given: TrainingData) -> dict[str, Any]:
    report = Notes()
    settings = Settings(criterion="l1", macs=0.4, round_to=1, iterations=2, epochs=3, batch_size=32)
    model = network()
    smaller = channel_pruning.rewrite(model, settings, given, report)
    classes = sorted(
        {type(layer).__name__ for layer in smaller.layers} - {type(layer).__name__ for layer in model.layers}
    )
    return {
        "notes": report.notes,
        "rising": report.fractions == sorted(report.fractions),
        "last": report.fractions[-1],
        "new_classes": classes,
        "epochs": [Settings(macs=0.5, epochs=5, iterations=3).epochs_of(i) for i in range(3)],
    }


def subclassed() -> Any:
    class Own(tf_keras.Model):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return inputs

    return Own(name="own")


def unknown_everywhere() -> Any:
    inputs = tf_keras.Input((8, 8, 1))
    x = layers.LayerNormalization(name="norm")(layers.Conv2D(16, 3, name="first")(inputs))
    return tf_keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, groups=2, name="grouped")(x)))


def wrongly_removed(given: TrainingData) -> None:
    model = network()
    channels = read_channels(model)
    kept, others = channels.all_kept(), channels.all_kept()
    kept[channels.groups[0][:4]] = others[channels.groups[0][4:8]] = False
    check_removal(model, without_channels(model, channels, others), channels, kept, given.inputs([0, 1]))


def errors(folder: Path) -> dict[str, str]:
    given, unlabelled = data(folder), data(folder, labels=False)
    asked = Settings(macs=0.5)
    cases: dict[str, Callable[[], Any]] = {
        "subclassed": lambda: channel_pruning.untreated(subclassed(), asked),
        "channels_first": lambda: channel_pruning.untreated(network(data_format="channels_first"), asked),
        "unknown": lambda: channel_pruning.untreated(unknown_everywhere(), asked),
        "narrow": lambda: channel_pruning.untreated(network(8, 8), asked),
        "macs": lambda: channel_pruning.untreated(network(), Settings(macs=0.1, exclude=["second"])),
        "ratio": lambda: channel_pruning.untreated(network(), Settings(ratio=0.7, min_channels=8)),
        "open": lambda: channel_pruning.untreated(network(size=None), asked),
        "no_scale": lambda: channel_pruning.untreated(dense(), Settings(criterion="bn_scale", ratio=0.5)),
        "labels": lambda: channel_pruning.rewrite(network(), asked, unlabelled, Notes()),
        "wrong": lambda: wrongly_removed(given),
    }
    return {name: message(case) for name, case in cases.items()}


def dense() -> Any:
    return tf_keras.Sequential([tf_keras.Input((4,)), layers.Dense(16, name="first"), layers.Dense(4, name="head")])


def message(case: Callable[[], Any]) -> str:
    try:
        case()
    except StepError as error:
        return str(error)
    return "no error"


def left(**settings: Any) -> dict[str, str]:
    return {left.layer: left.reason for left in channel_pruning.untreated(network(), Settings(**settings))}


def main(folder: Path) -> None:
    given = data(folder)
    facts = {
        "goals": goals(given),
        "ragged": ragged(given),
        "least_important": least_important(given),
        "step": whole_step(given),
        "errors": errors(folder),
        "excluded": left(ratio=0.1, exclude=["sec*"]),
        "unscaled": left(ratio=0.1, criterion="bn_scale"),
        "open_by_ratio": message(lambda: channel_pruning.untreated(network(size=None), Settings(ratio=0.5))),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
