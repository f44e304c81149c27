"""The reference task: its data, its checkpoint and its training, with real TensorFlow in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models import fashion_mnist
from models.datasets.dataset import DataUnavailable

REPOSITORY = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgepress"


def run_python(script: str, *arguments: str | Path) -> Any:
    """What a script prints last, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def provenance() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(fashion_mnist.CHECKPOINT.with_suffix(".json").read_text())
    return loaded


LOADED = """
import json, sys
import models.fashion_mnist
print(json.dumps([name for name in sys.argv[1:] if name in sys.modules]))
"""


def test_import_loads_neither_tensorflow_nor_numpy() -> None:
    assert run_python(LOADED, "tensorflow", "keras", "numpy") == []


def test_checkpoint_is_the_one_its_provenance_tells_of(provenance: dict[str, Any]) -> None:
    content = fashion_mnist.CHECKPOINT.read_bytes()
    assert len(content) == provenance["checkpoint_bytes"] < 2_000_000
    assert hashlib.sha256(content).hexdigest() == provenance["checkpoint_sha256"]
    assert provenance["checkpoint"] == fashion_mnist.CHECKPOINT.name


def test_provenance_names_what_made_the_checkpoint(provenance: dict[str, Any]) -> None:
    assert provenance["command"] == "edgepress train fashion_mnist --seed 0"
    assert (provenance["seed"], provenance["epochs"]) == (0, fashion_mnist.EPOCHS)
    assert set(provenance["libraries"]) == {"keras", "numpy", "python", "tensorflow"}
    assert set(provenance["data_sha256"]) == {"x_train", "y_train", "x_test", "y_test"}
    assert provenance["test_top1"] >= 0.925


def test_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=f"{tmp_path} does not hold fashion-mnist: .*train-images-idx3-ubyte"):
        fashion_mnist.load_data(tmp_path, tmp_path / "cache", lambda what, done, total: None)


ACCURACY = """
import hashlib, json, sys
from pathlib import Path
from models import fashion_mnist
data = fashion_mnist.load_data(None, Path(sys.argv[1]), lambda what, done, total: None)
import keras
model = keras.saving.load_model(fashion_mnist.CHECKPOINT)
arrays = {name: getattr(data, name) for name in ("x_train", "y_train", "x_test", "y_test")}
print(json.dumps({
    "arrays": {name: [str(array.dtype), *array.shape] for name, array in arrays.items()},
    "sha256": hashlib.sha256(data.x_test.tobytes()).hexdigest(),
    "optimizer": getattr(model, "optimizer", None) is not None,
    "parameters": model.count_params(),
    "top1": fashion_mnist.top1(model, data, data.x_test, data.y_test),
}))
"""


@pytest.mark.tensorflow
def test_checkpoint_reaches_the_stated_accuracy_on_the_real_test_images(provenance: dict[str, Any]) -> None:
    measured = run_python(ACCURACY, CACHE)
    assert measured["arrays"] == {
        "x_train": ["uint8", 60_000, 28, 28, 1],
        "y_train": ["int64", 60_000],
        "x_test": ["uint8", 10_000, 28, 28, 1],
        "y_test": ["int64", 10_000],
    }
    assert measured["sha256"] == provenance["data_sha256"]["x_test"]
    assert measured["parameters"] == provenance["parameters"]
    assert not measured["optimizer"]
    # Five images of 10,000: processors round sums differently.
    assert measured["top1"] == pytest.approx(provenance["test_top1"], abs=0.0005)


TRAINING = """
import json, sys
from pathlib import Path
import numpy as np
from models import fashion_mnist
from models.datasets.dataset import Dataset
rng = np.random.default_rng(1)
y = rng.integers(0, 10, 400)
x = np.repeat(np.repeat(rng.integers(0, 256, (10, 7, 7, 1), np.uint8)[y], 4, axis=1), 4, axis=2)
data = Dataset(x[:300], y[:300], x[300:], y[300:], 1 / 255, 0.0, "made up")
epochs = []
folder = Path(sys.argv[1])
returned = [
    fashion_mnist.train(data, 5, 2, folder / f"{name}.keras", lambda *told: epochs.append(told))
    for name in ("first", "second")
]
print(json.dumps({"returned": returned, "epochs": epochs}))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What two short trainings on made-up images returned and told, and the folder they wrote to."""
    folder = tmp_path_factory.mktemp("trained")
    return run_python(TRAINING, folder / "new"), folder / "new"


@pytest.mark.tensorflow
def test_training_writes_a_checkpoint_and_its_provenance_and_nothing_else(
    trained: tuple[dict[str, Any], Path],
) -> None:
    told, folder = trained
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(f"{name}.{ending}" for name in ("first", "second") for ending in ("keras", "json"))
    first = json.loads((folder / "first.json").read_text())
    assert first == told["returned"][0]
    assert first["checkpoint_sha256"] == hashlib.sha256((folder / "first.keras").read_bytes()).hexdigest()
    assert first["command"] == "edgepress train fashion_mnist --seed 5 --epochs 2"


@pytest.mark.tensorflow
def test_training_again_from_the_same_seed_gives_the_same_weights(
    trained: tuple[dict[str, Any], Path], provenance: dict[str, Any]
) -> None:
    first, second = (told["weights_sha256"] for told in trained[0]["returned"])
    # Those of the checkpoint come from other images and another seed.
    assert first == second != provenance["weights_sha256"]


@pytest.mark.tensorflow
def test_training_tells_each_epoch_with_its_figures(trained: tuple[dict[str, Any], Path]) -> None:
    epochs = trained[0]["epochs"]
    assert [(epoch, count) for epoch, count, _ in epochs] == [(1, 2), (2, 2), (1, 2), (2, 2)]
    assert all(set(figures) == {"loss", "top1", "validation_top1"} for _, _, figures in epochs)
    assert epochs[-1][2]["loss"] < epochs[-2][2]["loss"]
