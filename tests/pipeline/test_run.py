"""The whole line through the real command line: real TensorFlow, a real agent, real files."""

import json
import subprocess

import pytest
from variants import FIVE

pytestmark = pytest.mark.tensorflow


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
    assert variant["failure"]["kind"] == "preflight"
    assert "batch" in variant["failure"]["message"]


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
