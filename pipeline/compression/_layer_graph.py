"""The layers of a functional or sequential model (tf_keras), those of nested models among them, and their rewriting.

A layer is named by its path: its own name, after those of the models that it is nested in (``backbone/dense``). Names
are unique within one model only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.errors import StepError

Entry = dict[str, Any]
"""What stands for one layer in a model's configuration."""


def is_graph(layer: Any) -> bool:
    """Whether a layer, or the model itself, is a functional or sequential model whose layers can be looked at."""
    return bool(getattr(layer, "_is_graph_network", False))


def check_graph(model: Any) -> None:
    """Raise StepError for a model that has no graph of layers."""
    if not is_graph(model):
        raise StepError(
            f"model {model.name} ({type(model).__name__}) is subclassed or not built: it has no graph of layers to "
            "rewrite; expected a functional or sequential model"
        )


def layers_of(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and layer of each layer, those of nested models in the place of these."""
    for layer in model.layers:
        path = prefix + layer.name
        if is_graph(layer):
            yield from layers_of(layer, f"{path}/")
        else:
            yield path, layer


def has_kernel(layer: Any) -> bool:
    """Whether a layer has weights of at least two dimensions."""
    return any(len(weight.shape) >= 2 for weight in layer.weights)


def rebuilt(model: Any, change: Callable[[str, Entry], list[Entry]]) -> Any:
    """Return a new model, its weights drawn afresh, in which each layer has become what ``change`` gives for it.

    Args:
        model: functional or sequential.
        change: given path and entry of a layer, returns the entries that follow one another in its place. The last
            one keeps the name, so that whatever comes after it, and the model's outputs, need no rewiring. A layer
            that is called several times stays one layer.
    """
    import tf_keras

    config = _changed(model.get_config(), change, "")
    if isinstance(model, tf_keras.Sequential):
        return tf_keras.Sequential.from_config(config)
    return tf_keras.Model.from_config(config)


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a layer's configuration without some of its keys: Keras then takes its own defaults."""
    return {key: value for key, value in config.items() if key not in names}


def _changed(config: dict[str, Any], change: Callable[[str, Entry], list[Entry]], prefix: str) -> dict[str, Any]:
    return {**config, "layers": [new for entry in config["layers"] for new in _entries(entry, change, prefix)]}


def _entries(entry: Entry, change: Callable[[str, Entry], list[Entry]], prefix: str) -> list[Entry]:
    # Keras would build the layer for the input that it had before, and then refuse the one that it gets.
    entry = {key: value for key, value in entry.items() if key != "build_config"}
    path = prefix + entry["config"]["name"]
    if "layers" in entry["config"]:
        return [{**entry, "config": _changed(entry["config"], change, f"{path}/")}]
    return _chained(change(path, entry))


def _chained(entries: list[Entry]) -> list[Entry]:
    """Return entries that follow one another: the first has the inputs of the whole, in each call of the layer."""
    first = entries[0]
    if "inbound_nodes" not in first:
        return entries
    named = [{**entry, "name": entry["config"]["name"]} for entry in entries]
    for before, after in itertools.pairwise(named):
        after["inbound_nodes"] = [[[before["name"], call, 0, {}]] for call in range(len(first["inbound_nodes"]))]
    return named
