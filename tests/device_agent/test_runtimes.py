"""The real runtimes, each in its own environment, on real models with random weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runtime_pythons import ENVIRONMENTS, PYTHONS

from device_agent import runtimes
from device_agent.protocol import MeasureSpec, ModelSpec

MAKE_MODELS = """
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf

folder = sys.argv[1]
tf.keras.utils.set_random_seed(1)
model = tf.keras.Sequential([
    tf.keras.Input(batch_shape=(1, 8, 8, 1)),
    tf.keras.layers.Conv2D(8, 3, activation="relu"),
    tf.keras.layers.Flatten(),
    tf.keras.layers.Dense(10),
])
images = np.random.default_rng(0).integers(0, 256, (300, 8, 8), np.uint8)
real = images.astype(np.float32) / 255
for name in ("float32", "int8"):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if name == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None, ..., None]] for image in real[:100])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    open(f"{folder}/{name}.tflite", "wb").write(converter.convert())
np.save(f"{folder}/images.npy", images)
np.save(f"{folder}/labels.npy", model.predict(real[..., None], batch_size=1, verbose=0).argmax(1))
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """Two forms of one network, images, and the classes that Keras itself finds in them."""
    folder = tmp_path_factory.mktemp("trained")
    made = subprocess.run([sys.executable, "-c", MAKE_MODELS, str(folder)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.tensorflow
@pytest.mark.parametrize("runtime", ["litert", "tflite_runtime"])
def test_a_real_runtime_times_and_scores_float_and_int8_models(make_agent, trained, runtime):
    agent = make_agent(pythons=PYTHONS)
    host = agent.host()
    assert [info.problem for info in host.hello.runtimes if info.name == runtime] == [None]
    models = [
        ModelSpec(name, agent.push((trained / f"{name}.tflite").read_bytes()), runtime) for name in ("float32", "int8")
    ]
    broken = ModelSpec("broken", agent.push(b"this is no flatbuffer"), runtime)
    data = agent.data(np.load(trained / "images.npy"), np.load(trained / "labels.npy"), scale=1 / 255)
    measure = MeasureSpec(processes=2, warmup_s=0.1, timing_s=0.1)
    result = host.measure(agent.spec(*models, broken, data=data, measure=measure))
    float32, int8 = result.measurements
    assert float32.score.value == 1.0
    assert 0.7 < int8.score.value <= 1.0
    for block in (*float32.blocks, *int8.blocks):
        assert block.invokes >= 64
        assert 0 < block.median_ns < 10_000_000
        assert block.warmup_invokes > 0
        assert block.peak_rss_bytes > 10 << 20
    [failure] = result.failures
    assert (failure.model, failure.kind) == ("broken", "load")


def test_a_runtime_that_can_be_imported_but_opens_no_model_is_not_usable(make_agent, tmp_path):
    # numpy 2 beside tflite-runtime 2.14, the trap of facts.md: importing it succeeds.
    packages = next((ENVIRONMENTS / "litert" / "lib").glob("python3*/site-packages"))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {PYTHONS["tflite_runtime"]} "$@"\n')
    python.chmod(0o755)
    imported = subprocess.run([python, "-c", "import tflite_runtime.interpreter"], capture_output=True)
    assert imported.returncode == 0
    hello = make_agent(pythons={"litert": "/bin/false", "tflite_runtime": str(python)}).host().hello
    [info] = [info for info in hello.runtimes if info.name == "tflite_runtime"]
    assert info.version is None
    assert "tflite-runtime does not work with numpy 2" in info.problem


def test_the_known_runtimes_are_the_modules_of_the_folder():
    assert runtimes.known() == ["litert", "null", "tflite_runtime"]


@pytest.mark.parametrize("name", ["tensorrt", "os", "_interpreter"])
def test_an_unknown_runtime_lists_those_that_exist(name):
    with pytest.raises(ValueError, match=f'unknown runtime "{name}"; known: litert, null|runtime is ') as raised:
        runtimes.find(name)
    assert "import" not in str(raised.value)


def test_a_chosen_python_wins_then_a_sibling_environment_then_our_own():
    assert runtimes.python_of("litert", {"litert": "/bin/false"}) == "/bin/false"
    assert runtimes.python_of("litert", {}) == PYTHONS["litert"]
    assert runtimes.python_of("null", {}) == sys.executable
