"""Input that a run cannot use: one message each, before anything is built."""

import numpy as np
import pytest
from variants import FIVE

pytestmark = pytest.mark.tensorflow


BAD_INPUTS = [
    ({"model": "nowhere.keras"}, "nowhere.keras: no such file; expected a Keras .keras or .h5 file"),
    ({"model": "data.npz"}, "is a zip archive without Keras's metadata.json"),
    ({"model": "bad.tflite"}, "not a flatbuffer that TensorFlow Lite can read"),
    ({"model": "cut.tflite"}, "cut.tflite: not a flatbuffer that TensorFlow Lite can read"),
    ({"model": "empty"}, "the folder has no saved_model.pb"),
    ({"model": "ready.tflite", "variants": FIVE}, "is a finished float32 flatbuffer, whose layers are gone"),
    ({"data": "nowhere.npz"}, "nowhere.npz: no such file"),
    ({"data": "small.npz"}, "samples have shape (8, 8, 1); model"),
    ({"data": "labels.npz"}, "metric top1 does not fit"),
    ({"model": "lambda.h5"}, "has a Lambda layer, whose code would be run to load it"),
    ({"model": "tokens.keras", "data": "scaled.npz"}, "samples have shape"),
    ({"data": "one_hot.npz", "variants": FIVE}, "metric top1 does not fit"),
    ({"output": "file"}, "unknown key"),
    ({"metric": "top5"}, "metric top5 does not fit"),
]
BAD_RUNS = [
    ({"data": "small.npz"}, "samples have shape (8, 8, 1); model"),
    ({"measure": "{processes: 1000}"}, "e.yaml: job has 1 models in 1000 processes each"),
    ({"device": "pi9"}, 'unknown device "pi9"; known: local'),
]


@pytest.fixture(scope="module")
def bad_files(tiny_models):
    x_test, y_test = np.zeros((20, 8, 8, 1), np.float32), np.zeros(20, int)
    np.savez(tiny_models / "small.npz", x_test=x_test, y_test=y_test)
    np.savez(tiny_models / "labels.npz", x_test=np.zeros((20, 12, 12, 1), np.float32), y_test=y_test + 7)
    np.savez(tiny_models / "scaled.npz", x_test=np.zeros((20, 6), int), y_test=y_test)
    images = np.zeros((20, 12, 12, 1), np.float32)
    one_hot = np.eye(4)[np.zeros(20, int)]
    np.savez(tiny_models / "one_hot.npz", x_test=images, y_test=y_test, x_train=images, y_train=one_hot)
    (tiny_models / "bad.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"\xff" * 64)
    # It still begins as a flatbuffer does.
    content = (tiny_models / "ready.tflite").read_bytes()
    (tiny_models / "cut.tflite").write_bytes(content[: len(content) // 2])
    (tiny_models / "empty").mkdir()


@pytest.mark.parametrize(("asked", "message"), BAD_INPUTS, ids=lambda value: str(value)[:40])
def test_bad_input_is_told_in_one_message(bench, bad_files, steps, asked, message):
    assert message in bench.refusal(steps, **asked)
    assert not (bench.models / "code_was_run").exists()


@pytest.mark.parametrize(("asked", "message"), BAD_RUNS, ids=lambda value: str(value)[:40])
def test_a_run_that_cannot_begin_is_exit_code_2_without_a_traceback(bench, bad_files, asked, message):
    done = bench.edgepress("run", bench.experiment(**asked), "--quiet")
    assert message in done.stderr
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
