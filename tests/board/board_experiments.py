"""Experiments for the emulated board: few samples and short passes, since it is hundreds of times slower than one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from emulated_pi import ROOT
from ruamel.yaml import YAML

from models.datasets import fashion_mnist

SHIPPED = ROOT / "configs" / "experiments" / "fashion_mnist.yaml"
QUICK = {"processes": 2, "warmup_s": 0.1, "timing_s": 0.1}


def write_subset(folder: Path, scored: int, trained: int) -> Path:
    """Write the first ``scored`` test and ``trained`` training images of Fashion-MNIST, and return the file."""
    data = fashion_mnist.load_data(None, Path(platformdirs.user_cache_dir("edgepress")), lambda what, done, total: None)
    path = folder / "subset.npz"
    np.savez(
        path,
        x_train=data.x_train[:trained],
        y_train=data.y_train[:trained],
        x_test=data.x_test[:scored],
        y_test=data.y_test[:scored],
    )
    return path


def write_fashion_mnist(folder: Path, runtime: str, data: Path, **changes: Any) -> Path:
    """Write the shipped experiment for the emulated board: its model and variants, with ``data`` in place of all."""
    yaml = YAML()
    experiment = yaml.load(SHIPPED.read_text())
    del experiment["task"]
    experiment |= {
        "name": f"fashion_mnist_{runtime}",
        "model": str(ROOT / "models" / "fashion_mnist.keras"),
        "metric": "top1",
        "data": {"file": str(data), "scale": 1 / 255},
        "device": "emulated-pi",
        "runtime": runtime,
        "measure": QUICK,
        **changes,
    }
    path = folder / f"{experiment['name']}.yaml"
    with path.open("w") as file:
        yaml.dump(experiment, file)
    return path
