"""Pre-flight and the recipe through the real command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

TWO = "  float32: []\n  int8:\n    - quantization: {mode: int8, calibration_samples: 50}\n"
ONE = "  ready: []\n"


def pushed(bench) -> set[str]:
    """Return the hashes of everything that this machine's agent was ever given."""
    return {path.name for path in (bench.home / ".local/share/edgepress/agent/blobs").iterdir()}


def test_a_variant_is_stopped_alone_and_not_pushed_and_the_others_are_measured(fresh_bench):
    path = fresh_bench.experiment(variants=TWO, min_snr_db="90")
    done = fresh_bench.edgepress("run", path)
    assert done.returncode == 0, done.stdout + done.stderr
    float32, int8 = fresh_bench.record()["variants"]
    assert (float32["valid"], float32["failure"], int8["measurement"]) == (True, None, None)
    assert int8["failure"]["kind"] == "preflight"
    assert "litert 2.3.0 on this machine does not compute what keras3.keras does" in int8["failure"]["message"]
    assert "min_snr_db is 90; TensorFlow has " in int8["failure"]["message"]
    assert "pre-flight: stopped int8" in done.stdout
    assert float32["artifact"]["sha256"] in pushed(fresh_bench)
    assert int8["artifact"]["sha256"] not in pushed(fresh_bench)


def test_a_file_that_the_old_runtime_cannot_run_never_reaches_the_device(fresh_bench, tiny_models):
    # TensorFlow's converter quantizes a Dense layer by channels unless it is told for which runtime.
    make_dense(tiny_models)
    path = fresh_bench.experiment("version_12.tflite", "dense.npz", ONE, runtime="tflite_runtime")
    done = fresh_bench.edgepress("run", path)
    assert done.returncode == 1
    [ready] = fresh_bench.record()["variants"]
    assert "FULLY_CONNECTED version 12: tflite_runtime 2.14.0 knows it up to version 10" in ready["failure"]["message"]
    assert 'a step "quantization: {mode: dynamic_range}"' in ready["failure"]["message"]
    assert "push" not in done.stdout
    assert pushed(fresh_bench) == set()


def make_dense(folder: Path) -> None:
    script = """
import sys, keras, numpy as np, tensorflow as tf
inputs = keras.Input((32,))
model = keras.Model(inputs, keras.layers.Dense(64)(inputs))
converter = tf.lite.TFLiteConverter.from_keras_model(model)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
open(sys.argv[1], "wb").write(converter.convert())
"""
    subprocess.run([sys.executable, "-c", script, str(folder / "version_12.tflite")], check=True, capture_output=True)
    random = np.random.default_rng(0)
    np.savez(folder / "dense.npz", x_test=random.random((60, 32), np.float32), y_test=random.integers(0, 64, 60))


def test_an_artifact_carries_its_recipe_and_a_ready_file_stays_as_it_is(bench):
    assert bench.edgepress("run", bench.experiment(variants=TWO, seed="5"), "--quiet").returncode == 0
    record = bench.record()
    int8 = next(variant for variant in record["variants"] if variant["name"] == "int8")
    found = json.loads(bench.edgepress("inspect", "--json", int8_path(bench)).stdout)
    recipe = found["recipe"]
    assert found["sha256"] == int8["artifact"]["sha256"]
    [step] = recipe["steps"]
    assert step["technique"] == "quantization"
    # Those that were not asked for too.
    assert (step["settings"]["mode"], step["settings"]["calibration_samples"]) == ("int8", 50)
    assert (recipe["seed"], recipe["runtime"]) == (5, "litert")
    assert recipe["toolchain"] == int8["artifact"]["toolchain"]
    assert sorted(recipe["inputs"]) == ["model", "x_train", "y_train"]
    assert len(set(recipe["calibration_indices"])) == 50
    ready = bench.experiment("ready.tflite")
    assert bench.edgepress("run", ready, "--quiet").returncode == 0
    [variant] = bench.record()["variants"]
    newest = max((bench.folder / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert (newest / "models" / "float32.tflite").read_bytes() == (bench.models / "ready.tflite").read_bytes()
    assert variant["failure"] is None


def int8_path(bench) -> Path:
    [run] = (bench.folder / "runs").iterdir()
    return run / "models" / "int8.tflite"
