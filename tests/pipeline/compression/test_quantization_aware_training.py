from concurrent.futures import ThreadPoolExecutor

import pytest
from tfmot_cases import outcomes

pytestmark = pytest.mark.tensorflow

PRUNING = ["magnitude_pruning", {"final_sparsity": 0.6}]
CLUSTERING = ["weight_clustering", {"clusters": 8}]
NAME = "quantization_aware_training"
QAT = [NAME, {"epochs": 1}]
CHAIN = {"chain": ["nested", [PRUNING, CLUSTERING, QAT], []]}
CASES = {
    **CHAIN,
    "plain": ["tiny", [QAT], ["reloaded", "flatbuffers", "barely_calibrated", "refused", "again"]],
    "pruned": ["plain", [PRUNING, QAT], []],
    "clustered": ["plain", [CLUSTERING, QAT], []],
    "clustered, wide": ["wide", [["weight_clustering", {"clusters": 4}], QAT], ["flatbuffers"]],
    "one of both": ["tiny", [["magnitude_pruning", {"include": ["dense*"]}], QAT], []],
    "chosen": ["plain", [[NAME, {"epochs": 1, "exclude": ["head"]}]], []],
    "in part": ["in_part", [QAT], ["flatbuffers"]],
    "mixed": ["mixed", NAME, []],
    "clashing": ["clashing", NAME, []],
}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """All cases, and the chain of all techniques once more in another process."""
    with ThreadPoolExecutor() as threads:
        jobs = [threads.submit(outcomes, tmp_path_factory.mktemp("qat"), cases) for cases in (CASES, CHAIN)]
        return [job.result() for job in jobs]


@pytest.fixture(scope="module")
def done(both):
    return both[0]


def tensors(case, step=-1):
    return {name.split(":")[0].removeprefix("quant_"): tuple(state) for name, state in case["tensors"][step].items()}


def test_two_processes_give_the_same_weights_after_each_technique(both):
    first, second = (done["chain"] for done in both)
    assert len(set(first["digests"])) == 3
    assert first["digests"] == second["digests"]


def test_a_saved_model_with_wrappers_is_loaded_again(done):
    assert done["plain"]["reloaded"] == 0


def test_alone_it_becomes_int8_with_float_inputs_and_outputs(done):
    file = done["plain"]["flatbuffers"]["alone"]
    assert file["io"] == ["float32", "float32"]
    assert file["operators"].count("QUANTIZE") == file["operators"].count("DEQUANTIZE") == 1
    assert file["snr_db"] > 30


def test_before_an_int8_step_all_is_integer_and_the_ranges_are_the_learned_ones(done):
    file = done["plain"]["flatbuffers"]["int8"]
    assert (file["io"], file["types"]) == (["int8", "int8"], ["int32", "int8"])
    assert file["snr_db"] > 30
    # One sample for calibration or fifty: it makes no difference.
    assert done["plain"]["barely_calibrated"] == file["sha256"]
    assert "ranges are those learned in training" in done["plain"]["flatbuffers"]["notes"][0]


def test_it_becomes_nothing_but_int8(done):
    assert done["plain"]["refused"].startswith("mode float16 does not fit a model of quantization-aware training")


def test_zeros_stay_where_a_relu_layer_follows_and_in_layers_that_stay_in_float(done):
    before, after = (tensors(done["pruned"], step) for step in (0, 1))
    assert {name: share for name, (share, _) in after.items()} == {name: share for name, (share, _) in before.items()}
    assert done["pruned"]["notes"][0] == "PQAT (keeps zeros): conv/kernel, head/kernel"
    assert done["pruned"]["left"] == {
        "twice": "Conv2D: it is called 2 times, and TF-MOT learns one range for all; it stays in float"
    }


def test_clusters_stay_in_layers_that_are_quantized_and_in_those_that_are_not(done):
    assert done["clustered"]["notes"][0] == "CQAT (keeps clusters): conv/kernel, head/kernel"
    before, after = (tensors(done["clustered"], step) for step in (0, 1))
    grown = {name for name in before if after[name][1] > before[name][1]}
    told = {note.split(" ")[0] for note in done["clustered"]["notes"] if " distinct values, and has " in note}
    assert grown == told
    assert not grown & {"twice/kernel", "head/kernel"}


def test_clusters_stay_in_int8_over_all_channels(done):
    assert done["clustered, wide"]["notes"] == ["CQAT (keeps clusters): conv/kernel, wide/kernel, head/kernel"]
    assert done["clustered, wide"]["flatbuffers"]["int8"]["distinct"] == [4, 4, 4]


def test_zeros_and_clusters_stay_together_in_a_nested_model(done):
    assert done["chain"]["notes"] == ["PCQAT (keeps zeros and clusters): inner_conv/kernel, head/kernel"]
    before, after = (tensors(done["chain"], step) for step in (1, 2))
    assert before == after


def test_each_tensor_is_treated_by_its_own_zeros(done):
    kinds = [note.split(" ")[0] for note in done["one of both"]["notes"]]
    assert kinds == ["QAT", "PQAT"]
    assert [round(share, 1) for share, _ in tensors(done["one of both"]).values()] == [0, 0, 0.8]


def test_layers_are_chosen_by_name(done):
    assert done["chosen"]["left"]["head"] == "Dense: left out by include or exclude"
    assert done["chosen"]["notes"][0] == "QAT (nothing to keep): conv/kernel"


def test_what_tf_mot_does_not_quantize_is_left_in_float_and_named(done):
    left = done["mixed"]["left"]
    assert set(left) == {"prelu", "conv1d", "timed", "both_ways", "own"}
    assert left["conv1d"] == "Conv1D: TF-MOT does not quantize such layers; it stays in float"


def test_a_layer_that_stayed_in_float_is_quantized_by_the_int8_step(done):
    alone, int8 = (done["in part"]["flatbuffers"][name] for name in ("alone", "int8"))
    assert done["in part"]["left"] == {
        "conv1d": "Conv1D: TF-MOT does not quantize such layers; it stays in float",
    }
    assert ("float32" in alone["types"], "float32" in int8["types"]) == (True, False)
    assert int8["snr_db"] > 20


def test_a_model_that_was_trained_so_before_is_refused(done):
    assert done["plain"]["again"] == (
        "quantization_aware_training cannot treat this model: it has been trained under quantization before"
    )


def test_nested_models_whose_layers_have_one_name_are_refused(done):
    assert done["clashing"]["error"].endswith(
        "takes nested models apart, and several of their layers are called conv; rename them"
    )
