"""The whole line through the real command line: real TensorFlow, a real agent, real files."""

import json
import signal
import subprocess

import numpy as np
import pytest
from processes import heed_ctrl_c, processes_holding, wait_for

pytestmark = pytest.mark.tensorflow

FIVE = """\
  float32: []
  float16:
    - quantization: {mode: float16}
  dynamic_range:
    - quantization: {mode: dynamic_range}
  int8:
    - quantization: {mode: int8}
  pruned_int8:
    - magnitude_pruning: {epochs: 3, batch_size: 32}
    - quantization: {mode: int8}
"""


def test_five_variants_are_built_measured_and_reported_and_then_come_from_the_cache(bench):
    path = bench.experiment(variants=FIVE)
    first = bench.edgepress("run", path)
    assert first.returncode == 0, first.stdout + first.stderr
    record = bench.record()
    assert [variant["name"] for variant in record["variants"] if variant["valid"]] == [
        "float32", "float16", "dynamic_range", "int8", "pruned_int8",
    ]  # fmt: skip
    by_name = {variant["name"]: variant for variant in record["variants"]}
    assert by_name["float32"]["numbers"]["score"]["value"] > 0.9
    assert by_name["int8"]["artifact"]["inputs"][0]["dtype"] == "int8"
    assert by_name["pruned_int8"]["artifact"]["gzip_bytes"] < by_name["int8"]["artifact"]["gzip_bytes"]
    folder = next((bench.folder / "runs").iterdir())
    assert {"report.json", "report.md", "report.html", "models", "samples"} == {path.name for path in folder.iterdir()}
    assert (folder / "models" / "int8.tflite").stat().st_size == by_name["int8"]["artifact"]["size_bytes"]
    second = bench.edgepress("run", path, "--reuse")
    assert second.returncode == 0
    assert second.stdout.count("from the cache") == 5
    assert "taken over from an earlier run" in second.stdout
    assert all(variant["reused"] for variant in bench.record()["variants"])


def test_what_is_asked_of_a_measurement_is_in_its_report(bench):
    measure = "{processes: 2, warmup_s: 0.05, timing_s: 0.05, profile: true, sustained: 1s, precision: 90%}"
    variants = "  float32: []\n  int8:\n    - quantization: {mode: int8}\n"
    path = bench.experiment(variants=variants, measure=measure, threads="[1, 2]", delegate="none")
    done = bench.edgepress("run", path)
    assert done.returncode == 0, done.stdout + done.stderr
    record = bench.record()
    by_name = {variant["name"]: variant for variant in record["variants"]}
    assert list(by_name) == ["float32.t1", "float32.t2", "int8.t1", "int8.t2"]
    assert record["baseline"] == "float32.t1"
    assert [variant["measurement"]["threads"] for variant in record["variants"]] == [1, 2, 1, 2]
    int8 = by_name["int8.t1"]
    assert int8["comparison"]["baseline"] == "float32.t1"
    assert int8["comparison"]["p_value"] <= 1
    assert int8["measurement"]["delegation"]["delegated"] == 0
    assert int8["measurement"]["parity"][0]["snr_db"] > 10
    assert by_name["float32.t2"]["measurement"]["parity"][0]["largest_difference"] < 1e-5
    assert [minute["minute"] for minute in int8["measurement"]["sustained"]["minutes"]] == [1]
    folder = next((bench.folder / "runs").iterdir())
    listed = json.loads((folder / "samples" / int8["measurement"]["delegation"]["file_name"]).read_text())
    assert {operator["delegated"] for operator in listed} == {False}
    assert {"CONV_2D", "FULLY_CONNECTED"} <= {operator["name"] for operator in listed}
    # Of so tiny a model the runtime's clock may be too coarse, and then the report says so.
    assert bool(int8["operators"]) != bool(int8["measurement"]["profile"]["problem"])
    assert record["before"]["utc"] < record["after"]["utc"]
    assert "fresh processes only; it takes 5 for an interval" in " ".join(done.stdout.split())


def test_a_batch_that_the_graph_does_not_take_fails_with_the_reason(bench):
    measure = "{processes: 1, warmup_s: 0, timing_s: 0, batch: 4}"
    done = bench.edgepress("run", bench.experiment(measure=measure), "--quiet")
    assert done.returncode == 1
    [variant] = bench.record()["variants"]
    assert variant["failure"]["kind"] == "load"
    assert "batch" in variant["failure"]["message"]


@pytest.mark.parametrize("model", ["keras2.h5", "saved_model", "ready.tflite"])
def test_every_format_goes_from_init_to_report(bench, model):
    data = bench.models / "data.npz"
    made = bench.edgepress("init", "--model", bench.models / model, "--data", data, "--metric", "top1", "-o", "my.yaml")
    assert made.returncode == 0, made.stderr
    text = (bench.folder / "my.yaml").read_text()
    (bench.folder / "my.yaml").write_text(
        text.replace("warmup_s: 0.5", "warmup_s: 0").replace("timing_s: 1.0", "timing_s: 0")
    )
    done = bench.edgepress("run", "my.yaml", "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(variant["valid"] for variant in bench.record()["variants"])


def test_a_model_of_integer_inputs_is_quantized_too(bench):
    variants = "  float32: []\n  int8:\n    - quantization: {mode: int8}\n"
    done = bench.edgepress("run", bench.experiment("tokens.keras", "tokens.npz", variants), "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    by_name = {variant["name"]: variant for variant in bench.record()["variants"]}
    assert by_name["int8"]["valid"], by_name["int8"]["failure"]
    assert by_name["int8"]["artifact"]["inputs"][0]["dtype"] == "int32"


def test_a_folder_of_the_user_s_cannot_stand_in_for_our_modules(bench):
    for name in ("keras.py", "numpy.py", "json.py"):
        (bench.folder / name).write_text("raise ImportError('shadowed')\n")
    (bench.folder / "device_agent").mkdir()
    (bench.folder / "device_agent" / "__init__.py").write_text("raise ImportError('shadowed')\n")
    done = bench.edgepress("run", bench.experiment(seed=1), "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_runs_of_the_same_experiment_at_once_both_end_well(bench):
    path = bench.experiment(measure="{processes: 2, warmup_s: 0.1, timing_s: 0.11}")
    running = [
        subprocess.Popen(bench.command("run", path, "--quiet"), cwd=bench.folder, env=bench.environment, text=True)
        for _ in range(2)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]


def test_an_output_that_is_no_folder_is_told_before_anything_is_done(bench):
    (bench.folder / "taken").touch()
    done = bench.edgepress("run", bench.experiment(), "--output", "taken")
    assert (done.returncode, "fetch" in done.stdout) == (1, False)
    assert "cannot write" in done.stderr


def test_init_does_not_write_over_a_file_unless_told(bench):
    path = bench.experiment()
    arguments = (
        "init",
        "--model",
        bench.models / "keras2.h5",
        "--data",
        bench.models / "data.npz",
        "--metric",
        "top1",
        "-o",
        path,
    )
    refused = bench.edgepress(*arguments)
    assert (refused.returncode, "is there already" in refused.stderr) == (2, True)
    assert bench.edgepress(*arguments, "--force").returncode == 0


def test_the_old_runtime_measures_too(bench):
    path = bench.experiment(
        variants="  float32: []\n  dynamic_range:\n    - quantization: {mode: dynamic_range}\n",
        runtime="tflite_runtime",
    )
    done = bench.edgepress("run", path, "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {variant["measurement"]["runtime_version"] for variant in bench.record()["variants"]} == {"2.14.0"}


def test_a_budget_that_no_variant_meets_is_exit_code_3(bench):
    done = bench.edgepress("run", bench.experiment(budget="{size_kib: 0.5}"), "--quiet")
    assert done.returncode == 3
    assert "KiB" in done.stdout


def test_a_variant_that_cannot_be_built_fails_alone(bench):
    variants = "  float32: []\n  pruned:\n    - magnitude_pruning: {}\n"
    done = bench.edgepress("run", bench.experiment("saved_model", variants=variants), "--quiet")
    assert done.returncode == 0
    failed = bench.record()["variants"][1]
    assert failed["failure"]["kind"] == "build"
    assert (
        "a SavedModel without Keras layers has none that could be rewritten; it can be treated by quantization"
        in failed["failure"]["message"]
    )


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


def test_a_flatbuffer_that_the_runtime_cannot_load_is_stopped_with_the_reason(bench):
    done = bench.edgepress("run", bench.experiment("too_new.tflite", runtime="tflite_runtime"), "--quiet")
    assert done.returncode == 1
    [variant] = bench.record()["variants"]
    assert variant["failure"]["kind"] == "preflight"
    assert "FULLY_CONNECTED version 12: tflite_runtime 2.14.0 knows it up to" in variant["failure"]["message"]
    assert "FULLY_CONNECTED" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_full_disk_on_this_machine_is_told_and_nothing_half_written(bench, small_disk):
    (small_disk / "filler").write_bytes(bytes(900 << 10))
    done = bench.edgepress("run", bench.experiment(variants=FIVE), "--quiet", XDG_CACHE_HOME=str(small_disk))
    assert done.returncode == 1
    assert "disk full" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(small_disk.rglob(".part-*"))


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_run_leaves_no_process_and_goes_on_from_the_cache(fresh_bench, sent, code):
    variants = "".join(FIVE.partition("  pruned_int8")[1:])
    path = fresh_bench.experiment(variants="  float32: []\n" + variants.replace("epochs: 3", "epochs: 300"))
    builds = fresh_bench.home / ".cache" / "edgepress" / "builds"
    running = subprocess.Popen(
        fresh_bench.command("run", path),
        preexec_fn=heed_ctrl_c,
        cwd=fresh_bench.folder,
        env=fresh_bench.environment,
        stderr=subprocess.PIPE,
        text=True,
    )

    wait_for(lambda: any(builds.glob("[0-9a-f]*/model.tflite")))
    running.send_signal(sent)
    _, said = running.communicate(timeout=30)
    assert running.returncode == code
    assert "Traceback" not in said
    assert ("run the same command again" in said) == (sent == signal.SIGINT)
    assert "SIGKILL" not in said
    wait_for(lambda: not processes_holding(builds), 10)
    finished = {entry.name for entry in builds.glob("[0-9a-f]*")}
    again = fresh_bench.edgepress("run", fresh_bench.experiment(variants="  float32: []\n" + variants))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "from the cache" in again.stdout
    assert finished <= {entry.name for entry in builds.iterdir()}
    assert not list(builds.glob(".part-*"))
