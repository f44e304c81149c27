"""Channel pruning on real networks: what goes, what stays, what is said, and that the outputs are the right ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tensorflow

HERE = Path(__file__).parent
CHAINED = """\
  int8:
    - quantization: {mode: int8}
  small_int8:
    - channel_pruning: {macs: 0.6, round_to: 2, iterations: 2, epochs: 4, batch_size: 32, score_samples: 64}
    - quantization: {mode: int8}
"""


def printed(script: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        cwd=HERE.parents[2],
        env={"PYTHONPATH": str(HERE.parents[2]), "TF_CPP_MIN_LOG_LEVEL": "3", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def examined() -> dict:
    return printed("channel_architectures.py")


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> dict:
    return printed("channel_steps.py", str(tmp_path_factory.mktemp("steps")))


def test_the_smaller_model_computes_what_the_whole_one_does_without_reading_the_removed_channels(examined):
    assert {name: facts["difference"] for name, facts in examined.items() if facts["difference"] >= 1e-5} == {}
    # The channels that went did matter: otherwise nothing is shown.
    assert [name for name, facts in examined.items() if facts["changed"] < 1e-4] == []


def test_every_architecture_became_smaller(examined):
    for name, facts in examined.items():
        before, after = facts["parameters"]
        assert after < before, name
        assert all(seed["filters"] != facts["before"] for seed in facts["seeds"]), name


def test_macs_are_counted_as_on_the_flatbuffer(examined):
    for name, facts in examined.items():
        last = facts["seeds"][-1]
        assert last["counted"] == last["recounted"], name
        assert facts.get("flatbuffer_macs", last["counted"]) == last["counted"], name
    assert len([facts for facts in examined.values() if "flatbuffer_macs" in facts]) >= 12


def test_what_is_added_keeps_the_same_channels(examined):
    for seed in examined["residual"]["seeds"]:
        assert seed["filters"]["a"] == seed["filters"]["c"]
        assert seed["filters"]["d"] == seed["filters"]["projection"]
    for seed in examined["generator"]["seeds"]:
        assert seed["filters"]["a"] % 16 == 0


def test_what_is_not_understood_keeps_its_channels_and_is_named(examined):
    facts = examined["kept_where_unknown"]
    assert facts["left"] == {
        "unknown": "Doubled: channel_pruning has no rule for it",
        "to_unknown": "Conv2D: they reach unknown (Doubled): channel_pruning has no rule for it",
        "mixing": "LayerNormalization: it computes over all channels",
        "to_mixing": "Conv2D: they reach mixing (LayerNormalization): it computes over all channels",
        "grouped": "Conv2D: a grouped convolution is left as it is",
        "to_grouped": "Conv2D: they reach grouped (Conv2D): a grouped convolution is left as it is",
        "moved": "Permute: it moves the channels to another axis",
        "to_permute": "Conv2D: they reach moved (Permute): it moves the channels to another axis",
        "mixing_activation": "Conv2D: its activation softmax may compute over all channels",
        "nested": "Sequential: a nested model is left as it is",
        "to_nested": "Conv2D: they reach nested (Sequential): a nested model is left as it is",
    }
    changed = {name for name, count in facts["before"].items() if facts["seeds"][-1]["filters"][name] != count}
    assert changed == {"free"}
    assert "its units stay" in examined["recurrent"]["left"]["lstm"]


def test_goals_are_met_within_one_block(steps):
    # The most that one filter of this network takes along is one of the sixteen of its first layer.
    for case in steps["goals"]:
        goal = case["macs"] if "macs" in case else 1 - case["ratio"]
        assert goal - case["round_to"] / 16 < case["share"] <= goal, case


def test_widths_stay_multiples_and_above_the_minimum(steps):
    for case in steps["goals"]:
        for layer in ("first", "second"):
            assert case["filters"][layer] % case["round_to"] == 0, case
            assert case["filters"][layer] >= case["min_channels"], case
    assert (steps["ragged"]["first"] % 8, steps["ragged"]["second"] % 8) == (0, 0)


@pytest.mark.parametrize("criterion", ["l1", "bn_scale", "taylor"])
def test_a_criterion_removes_the_channel_that_matters_least_by_it(steps, criterion):
    assert steps["least_important"][criterion]


def test_a_step_gives_ordinary_layers_and_tells_what_went(steps):
    step = steps["step"]
    assert step["new_classes"] == []
    [note] = step["notes"]
    assert note.startswith("channels removed by l1: MACs 230,496 → ")
    assert "filters first 16 → " in note
    assert step["rising"]


def test_epochs_are_divided_among_the_iterations(steps):
    assert steps["step"]["epochs"] == [1, 1, 3]


ERRORS = {
    "subclassed": "needs the graph of a functional or a sequential model; own is a Own without one",
    "channels_first": "these layers have channels first: first, second; expected data_format channels_last",
    "unknown": "can remove nothing from this model: norm: LayerNormalization: it computes over all channels; grouped: "
    "Conv2D: a grouped convolution is left as it is; first: Conv2D: they reach norm",
    "narrow": "can remove nothing from this model: no layer is wide enough with min_channels 4 and round_to 8",
    "macs": "macs is 0.1, but 0.500 of the MACs stay with min_channels 4 and round_to 8",
    "ratio": "ratio is 0.7, but 0.400 of the filters stay with min_channels 8 and round_to 8",
    "open": "macs needs a model whose inputs have fixed sizes",
    "no_scale": "first: Dense: no batch normalization with a scale follows it, which bn_scale needs",
    "labels": "the criterion taylor needs x_train and y_train",
    "wrong": "removed channels wrongly: outputs differ by",
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_done_is_told_with_the_reason(steps, case):
    assert ERRORS[case] in steps["errors"][case]


def test_layers_that_are_left_out_are_named(steps):
    assert steps["excluded"]["second"] == "Conv2D: left out by include or exclude"
    assert "no batch normalization with a scale follows it" in steps["unscaled"]["second"]
    assert "first" not in {**steps["excluded"], **steps["unscaled"]}


def test_sizes_left_open_forbid_macs_and_not_a_ratio(steps):
    assert steps["open_by_ratio"] == "no error"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{}", "expected exactly one of ratio and macs"),
        ("{ratio: 0.5, macs: 0.5}", "expected exactly one of ratio and macs"),
        ("{macs: 0.5, epochs: 2, iterations: 3}", "at least one epoch for each iteration; epochs is 2, iterations 3"),
        ("{macs: 1}", "macs is 1; expected a number above 0 and below 1"),
    ],
)
def test_settings_that_contradict_each_other_are_told(bench, settings, message):
    done = bench.edgepress("run", bench.experiment(variants=f"  small:\n    - channel_pruning: {settings}\n"))
    assert done.returncode == 2
    assert message in done.stderr


def test_a_pruned_variant_is_smaller_right_and_the_same_in_two_processes(bench, fresh_bench):
    quick = "{processes: 1, warmup_s: 0, timing_s: 0}"
    records = []
    for each in (bench, fresh_bench):
        done = each.edgepress("run", each.experiment(variants=CHAINED, measure=quick, baseline="int8"), "--quiet")
        assert done.returncode == 0, done.stdout + done.stderr
        records.append({variant["name"]: variant for variant in each.record()["variants"]})
    whole, small = records[0]["int8"], records[0]["small_int8"]
    assert small["valid"], small["failure"]
    assert small["numbers"]["score"]["value"] > 0.8
    pruned, converted = small["artifact"]["evidence"]
    assert converted["macs"] == pruned["macs"] <= 0.6 * whole["artifact"]["evidence"][0]["macs"]
    assert "channels removed by taylor: MACs" in pruned["notes"][0]
    assert records[1]["small_int8"]["artifact"]["sha256"] == small["artifact"]["sha256"]
