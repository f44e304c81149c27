"""Selective quantization on tiny models: as few layers in float as the target takes, and no fewer."""

import re

import pytest

from pipeline.compression.selective_quantization import Settings
from pipeline.yaml_file import mistakes_in

pytestmark = pytest.mark.tensorflow

LOST = re.compile(r"int8 throughout: [^;]*accuracy -([0-9.]+) pp")
CASES = {
    "easy": ({"min_snr_db": 30}, {}),
    "hard": ({"min_snr_db": 53, "io": "float32"}, {}),
    "lenient": ({"max_accuracy_drop_pp": 50}, {}),
    "by_accuracy": ({"max_accuracy_drop_pp": 8}, {"model": "outlier"}),
    "by_both": ({"max_accuracy_drop_pp": 5, "min_snr_db": 53, "io": "float32"}, {}),
    "impossible": ({"min_snr_db": 120}, {}),
    "limited": ({"min_snr_db": 53, "max_layers": 0}, {}),
    "wide": ({"min_snr_db": 52, "io": "float32", "fallback": "int16"}, {}),
    "keras2": ({"min_snr_db": 53, "io": "float32"}, {"model": "keras2.h5"}),
    "saved_model": ({"min_snr_db": 53, "io": "float32"}, {"model": "saved_model"}),
    "tokens": ({"min_snr_db": 20, "calibration_samples": 100}, {"model": "tokens.keras"}),
    "trained": ({"min_snr_db": 30}, {"model": "trained_for_int8"}),
    "few": ({"min_snr_db": 30}, {"samples": 30}),
    "unlabelled": ({"max_accuracy_drop_pp": 5}, {"unlabelled": True}),
    "old_runtime": ({"min_snr_db": 30, "fallback": "int16"}, {"runtime": "tflite_runtime"}),
}


@pytest.fixture(scope="module")
def selected(converted):
    return converted({name: ("selective_quantization", *case) for name, case in CASES.items()})


def test_nothing_is_left_when_int8_is_good_enough(selected):
    for name in ("easy", "lenient"):
        assert selected[name]["left"] == []
        assert "with 0 of 5 layers in float32" in selected[name]["notes"][0]
    assert selected["easy"]["dtypes"] == ["int8"]
    assert len(selected["easy"]["indices"]) == 200


def test_some_layers_are_left_and_named_with_their_sensitivity(selected):
    for name in ("hard", "keras2", "saved_model"):
        found = selected[name]
        assert 0 < len(found["left"]) < 5
        assert all("left in float32; alone in int8 it gives" in reason for _, reason in found["left"])
        assert found["snr_db"] > 51
        assert {layer for layer, dtype in found["weights"].items() if dtype == "float32"} <= {
            layer for layer, _ in found["left"]
        }
        assert "asked: 53 dB at least; over 400 held-out training samples" in found["notes"][0]


def test_layers_are_left_until_the_accuracy_is_there(selected):
    found = selected["by_accuracy"]
    assert found["left"]
    assert float(LOST.search(found["notes"][0]).group(1)) > 15
    assert found["accuracy"] > 0.88


def test_of_two_targets_both_are_met(selected):
    assert selected["by_both"]["left"] == selected["hard"]["left"]


def test_layers_can_be_left_in_int16(selected):
    assert selected["wide"]["left"]
    assert all("left in int16" in reason for _, reason in selected["wide"]["left"])
    assert selected["wide"]["dtypes"] == ["int8"]


def test_a_target_out_of_reach_is_an_error_with_the_best_that_was_reached(selected):
    message = selected["impossible"]["error"]
    assert "120 dB at least cannot be met with up to 5 of 5 layers in float32; the best was" in message
    assert "io: float32 may give more" in message
    assert "(max_layers is 0)" in selected["limited"]["error"]


def test_inputs_of_integers_stay_as_they_are(selected):
    assert selected["tokens"]["ends"] == ["int32", "int8"]


def test_what_cannot_be_selected_from_is_refused(selected):
    assert "nothing to choose in a model of quantization-aware training" in selected["trained"]["error"]
    assert "of 30, 30 are for calibration, which leaves 0; expected 20 at least" in selected["few"]["error"]
    assert "max_accuracy_drop_pp needs x_train and y_train" in selected["unlabelled"]["error"]
    assert "fallback int16 does not run on tflite_runtime 2.14" in selected["old_runtime"]["error"]


def test_two_processes_select_the_same_and_no_fewer_would_do(selected, converted):
    settings, how = CASES["hard"]
    fewer = {**settings, "max_layers": len(selected["hard"]["left"]) - 1}
    cases = {**{name: CASES[name] for name in ("hard", "wide")}, "fewer": (fewer, how)}
    again = converted({name: ("selective_quantization", *case) for name, case in cases.items()})
    assert "53 dB at least cannot be met with up to" in again.pop("fewer")["error"]
    assert {name: found["sha256"] for name, found in again.items()} == {
        name: selected[name]["sha256"] for name in again
    }


def test_a_target_is_asked_for():
    [(_, text)] = mistakes_in({}, Settings)
    assert text == "no target is set; expected min_snr_db, max_accuracy_drop_pp or both"


def test_it_runs_from_the_command_line_on_the_old_runtime(bench):
    variants = "  float32: []\n  selected:\n    - selective_quantization: {min_snr_db: 30}\n"
    done = bench.edgepress("run", bench.experiment(variants=variants, runtime="tflite_runtime"), "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    selected = bench.record()["variants"][1]
    assert selected["valid"], selected["failure"]
    assert "int8 throughout" in selected["artifact"]["evidence"][-1]["notes"][0]
