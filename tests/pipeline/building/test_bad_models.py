"""Models and labels that cannot be used: one message each, before anything is built."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.building import memory
from pipeline.errors import ModelError

pytestmark = pytest.mark.tensorflow

STEP = "  v:\n    - magnitude_pruning: {epochs: 1, batch_size: 32}\n"
NAN = "weights that are not finite: "
OWN = "has layers that are not Keras's own: shout (Own); build it from layers of Keras, or give it as a SavedModel"
LAMBDA = "has a Lambda layer, whose code would be run to load it: double (Lambda); replace it by a layer of Keras"


@pytest.fixture(scope="module")
def models(tiny_models) -> Path:
    script = Path(__file__).parents[2] / "bad_models.py"
    made = subprocess.run([sys.executable, str(script), str(tiny_models)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return tiny_models


CASES = {
    "NaN in Keras 3": ({"model": "nan.keras"}, [f"nan.keras: {NAN}conv2d", "(2 values); train the model again"]),
    "NaN in Keras 2": ({"model": "nan.h5"}, [f"nan.h5: {NAN}conv2d/kernel:0 (2 values)"]),
    "NaN in a SavedModel": ({"model": "nan_saved"}, [f"nan_saved: {NAN}", "(2 values)"]),
    "a layer of one's own, Keras 3": ({"model": "own.keras"}, [f"own.keras: {OWN}"]),
    "a layer of one's own, Keras 2": ({"model": "own.h5"}, [f"own.h5: {OWN}"]),
    "code in Keras 3": ({"model": "code.keras"}, [f"code.keras: {LAMBDA}"]),
    "no known rank": ({"model": "rankless"}, ["rankless: tensor x has no known number of dimensions"]),
    "two inputs": ({"model": "two_inputs"}, ["two_inputs: has 2 inputs (x, y) and 1 outputs", "expected one of each"]),
    "a batch of 8": ({"model": "batch_8"}, ["batch_8: takes batches of 8 only; expected any batch, or batches of 1"]),
    "steps for integers": (
        {"model": "int8.tflite", "variants": STEP},
        ["variant v has steps, but", "int8.tflite is already quantized (weights int8; inputs int8, outputs int8)"],
    ),
    "steps for a finished one": (
        {"model": "ready.tflite", "variants": STEP},
        ["ready.tflite is a finished float32 flatbuffer, whose layers are gone; expected the .keras, .h5, .onnx or"],
    ),
    "training labels": (
        {"data": "train_labels.npz", "variants": STEP},
        ["metric top1 does not fit y_train: top1 got labels 1 to 4; expected 0 to 3"],
    ),
    "test labels": ({"data": "test_labels.npz"}, ["metric top1 does not fit y_test: top1 got labels -1 to 2"]),
    "memory": (
        {"limits": "{host_memory_mib: 64}"},
        ["keras3.keras: has 1 MiB, for which a step needs about 80", "MiB of memory", "; 64 MiB are available"],
    ),
}


@pytest.mark.parametrize(("asked", "messages"), CASES.values(), ids=CASES)
def test_what_cannot_be_used_is_told_in_one_message(bench, models, steps, asked, messages):
    said = bench.refusal(steps, **asked)
    for message in messages:
        assert message in said


def test_sizes_that_a_model_leaves_open_are_those_of_the_samples(bench, models, steps):
    assert bench.built(steps, "open.keras").inputs[0].shape == (1, 12, 12, 1)


def test_a_saved_model_with_its_keras_layers_can_be_rewritten(bench, models, steps):
    evidence = bench.built(steps, "keras_saved", variants=STEP).evidence[0]
    assert max(tensor.zeros for tensor in evidence.tensors) > 0.7


def meminfo(tmp_path: Path, available_mib: int) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {available_mib << 10} kB\n")
    return path


def test_as_many_steps_run_side_by_side_as_memory_allows(tmp_path):
    one = memory.plan(10 << 20, 0, 0, meminfo(tmp_path, 1200))
    assert (one.step_bytes >> 20, one.side_by_side) == (930, 1)
    many = memory.plan(10 << 20, 0, 0, meminfo(tmp_path, 930 * 1000))
    assert many.side_by_side == (memory.os.cpu_count() or 1)
    assert memory.plan(10 << 20, 0, 0, tmp_path / "none").side_by_side == (memory.os.cpu_count() or 1)


def test_a_model_bigger_than_memory_is_refused_with_both_numbers(tmp_path):
    plan = memory.plan(1 << 30, 100 << 20, 0, meminfo(tmp_path, 4096))
    with pytest.raises(ModelError, match=r"m.keras: has 1024 MiB, .* about 14312 MiB of memory.*; 4096 MiB are avail"):
        plan.check(Path("m.keras"), 1 << 30)
