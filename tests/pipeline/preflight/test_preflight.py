"""What pre-flight stops and lets pass, in the real runtimes."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.protocol import Failure
from pipeline.preflight import make_trial
from pipeline.preflight.environment import find_environment
from pipeline.preflight.judgement import problem_of, unable
from pipeline.preflight.trial import run_trials

CRASHING = Path(__file__).parents[2] / "data" / "models"

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("runtime", ["litert", "tflite_runtime"])
def test_good_files_pass(flight, runtime):
    trip = flight(runtime)
    good = [trip.variant("float32")] + ([trip.variant("wi8")] if runtime == "litert" else [])
    assert [(v.failure, v.notes) for v in trip.check(*good).values()] == [(None, ())] * len(good)


def test_a_version_too_new_is_stopped_with_the_limit_and_the_setting_that_avoids_it(flight):
    trip = flight("tflite_runtime")
    checked = trip.check(trip.variant("float32"), trip.variant("version_12"))
    assert checked["float32"].failure is None
    failure = checked["version_12"].failure
    assert failure.kind == "preflight"
    assert "FULLY_CONNECTED version 12: tflite_runtime 2.14.0 knows it up to version 10" in failure.message
    assert 'a step "quantization: {mode: dynamic_range}" with "runtime: tflite_runtime"' in failure.message
    assert 'with "runtime: litert" it would run' in failure.message


def test_a_file_that_hides_its_version_is_stopped_before_it_is_run(flight):
    trip = flight("tflite_runtime")
    failure = trip.check(trip.variant("wi8"))["wi8"].failure
    assert failure.kind == "preflight"
    assert (
        "FULLY_CONNECTED version 1, with a float32 input and int8 weights of a scale for each channel"
        in failure.message
    )
    assert "is version 12, whatever the file says" in failure.message


def test_a_file_that_the_runtime_computes_wrongly_is_stopped_by_its_outputs_alone(flight):
    trip = flight("tflite_runtime")
    # No table of operators for this version: only running it can tell.
    checked = trip.check(trip.variant("float32"), trip.variant("wi8"), version="2.13.0")
    assert checked["float32"].failure is None
    message = checked["wi8"].failure.message
    assert message.startswith(
        "tflite_runtime 2.14.0 on this machine does not compute what float32.tflite does in TensorFlow: output "
    )
    assert re.search(r"has a signal-to-noise ratio of -?[0-2]\.\d dB over 32 samples; min_snr_db is 5;", message)
    assert message.endswith(
        "TensorFlow has 40.0 dB with it, so the runtime computes it wrongly; choose another; its operators: "
        "FULLY_CONNECTED version 1"
    )
    assert checked["float32"].notes == (
        "operators not compared before the push: known are those of litert 2.3.0, tflite_runtime 2.14.0; not "
        "tflite_runtime 2.13.0",
        "run before the push in tflite_runtime 2.14.0, not in 2.13.0",
    )


def test_blocks_that_the_runtime_reads_past_are_stopped(flight):
    trip = flight("tflite_runtime")
    checked = trip.check(trip.variant("float32"), trip.variant("wi4_blocks"))
    assert checked["float32"].failure is None
    message = checked["wi4_blocks"].failure.message
    assert message.startswith(
        "FULLY_CONNECTED version 1, with weights in blocks of 32: tflite_runtime 2.14.0 does not know"
    )
    # Whether it dies of them or answers at random is up to what lies in memory.
    assert trip.check(trip.variant("float32"), trip.variant("wi4_blocks"), version="2.13.0")["wi4_blocks"].failure


def test_what_the_runtime_dies_of_is_told_with_the_suspect(flight):
    trip = flight("tflite_runtime")
    died = Failure("wi4_blocks", "crash", "scoring ended with SIGSEGV")
    found = find_environment("tflite_runtime")
    message = problem_of(died, trip.variant("wi4_blocks").artifact, trip.experiment, found)
    assert message == (
        "tflite_runtime 2.14.0 on this machine dies of it: scoring ended with SIGSEGV; it has int4 weights, which not "
        'every operator takes there; "runtime: litert" takes more (FULLY_CONNECTED version 1)'
    )


@pytest.mark.parametrize("runtime", ["litert", "tflite_runtime"])
def test_a_file_that_cannot_even_be_opened_is_stopped_with_the_signal(flight, runtime):
    trip = flight(runtime)
    crashing = trip.variant("recursive_if", CRASHING / "recursive_if.tflite")
    checked = trip.check(trip.variant("float32"), crashing)
    assert checked["float32"].failure is None
    failure = checked["recursive_if"].failure
    assert "on this machine dies of it: scoring ended with SIGSEGV" in failure.message
    assert failure.message.endswith("the first operator that it dies of is IF version 1, 1 of 1")
    assert "Segmentation fault" in failure.detail


def test_the_operator_that_the_runtime_dies_of_is_named(flight):
    trip = flight("tflite_runtime")
    variant = trip.variant("slice_midway", CRASHING / "slice_midway.tflite")
    message = trip.check(trip.variant("float32"), variant)["slice_midway"].failure.message
    assert message == (
        "tflite_runtime 2.14.0 on this machine dies of it: scoring ended with SIGSEGV; the first operator that it dies "
        "of is SLICE version 1, 2 of 3"
    )


def test_a_file_that_runs_past_the_limit_of_time_is_stopped(flight):
    trip = flight("litert")
    trip.experiment = replace(trip.experiment, limits=replace(trip.experiment.limits, block_timeout_s=0.1))
    failure = trip.check(trip.variant("float32"))["float32"].failure
    assert failure.message == "litert 2.3.0 on this machine has no answer: scoring took longer than 0.1 s"


def test_outputs_nearer_than_asked_pass_and_further_ones_do_not(flight):
    trip = flight("litert", min_snr_db=10.0)
    assert trip.check(trip.variant("float32"), trip.variant("wi4_blocks"))["wi4_blocks"].failure is None
    trip.experiment = replace(trip.experiment, min_snr_db=60.0)
    far = trip.variant("wi4_blocks", snr_db=13.0)
    message = trip.check(trip.variant("float32"), far)["wi4_blocks"].failure.message
    assert "min_snr_db is 60; TensorFlow has 13.0 dB with it: it is another function" in message
    assert message.endswith("lower min_snr_db if that is meant")


def test_what_lies_is_stopped_though_no_float32_variant_is_there(flight):
    trip = flight("tflite_runtime")
    message = trip.check(trip.variant("wi8"), version="2.13.0")["wi8"].failure.message
    assert "does not compute what float32.tflite does in TensorFlow" in message


@pytest.mark.parametrize(("name", "fits"), [("float32", True), ("fixed", False)])
def test_a_batch_that_the_graph_does_not_take_is_stopped(flight, name, fits):
    trip = flight("litert")
    trip.experiment = replace(trip.experiment, measure=replace(trip.experiment.measure, batch=4))
    failure = trip.check(trip.variant("float32"), trip.variant(name))[name].failure
    assert (failure is None) == fits
    assert fits or ("litert 2.3.0 on this machine refuses it: " in failure.message and "batch" in failure.message)


def without_python(trip):
    """The trial in an environment whose Python is gone."""
    gone = replace(find_environment(trip.experiment.runtime), python="/nonexistent/python")
    return make_trial(trip.experiment, gone, trip.expected, trip.samples, trip.cache)


def test_what_was_run_before_is_not_run_again(flight):
    trip = flight("tflite_runtime")
    variants = [trip.variant("float32"), trip.variant("recursive_if", CRASHING / "recursive_if.tflite")]
    trip.check(*variants)
    files = {variant.artifact.sha256: Path(variant.artifact.path) for variant in variants}
    outcomes = run_trials(without_python(trip), files, trip.cache, lambda: None)
    assert outcomes[variants[0].artifact.sha256].parity[0].samples == 32
    assert outcomes[variants[1].artifact.sha256].message.startswith("scoring ended with SIGSEGV")
    assert not list((trip.cache.folder / "preflight").glob(".part-*"))


def test_a_runtime_that_does_not_start_stops_nothing_and_is_told_and_tried_again(flight):
    trip = flight("tflite_runtime")
    variant = trip.variant("float32")
    files = {variant.artifact.sha256: Path(variant.artifact.path)}
    [outcome] = run_trials(without_python(trip), files, trip.cache, lambda: None).values()
    assert unable(outcome) == "not run before the push: /nonexistent/python: No such file or directory"
    assert trip.check(variant)["float32"].notes == ()
    assert [path.suffix for path in (trip.cache.folder / "preflight").iterdir()] == [""]


def test_a_machine_without_the_runtime_says_so_and_compares_operators_all_the_same(flight, monkeypatch, tmp_path):
    # Nothing lies beside this Python, and it has no tflite-runtime of its own.
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "elsewhere"))
    trip = flight("tflite_runtime")
    checked = trip.check(trip.variant("float32"), trip.variant("version_12"))
    [note] = checked["float32"].notes
    assert note == 'not run before the push: this machine has no Python with tflite_runtime; "make setup" makes one'
    assert "knows it up to version 10" in checked["version_12"].failure.message


def test_the_gpu_s_file_is_run_on_the_processor(flight):
    trip = flight("litert", delegate="gpu")
    trial = make_trial(trip.experiment, find_environment("litert"), trip.expected, trip.samples, trip.cache)
    assert trial.delegate == "xnnpack"
    assert trip.check(trip.variant("float32"))["float32"].failure is None


def test_the_stand_in_runtime_is_passed_over(flight):
    trip = flight("litert")
    trip.experiment = replace(trip.experiment, runtime="null")
    assert trip.check(trip.variant("float32"), version="1")["float32"].notes == ()
