import pytest
from pydantic import ValidationError
from tfmot_cases import outcomes

from pipeline.compression.magnitude_pruning import Settings

pytestmark = pytest.mark.tensorflow


def pruning(**settings):
    return ["magnitude_pruning", {"final_sparsity": 0.75, **settings}]


CASES = {
    "polynomial": ["tiny", [pruning()], ["momenta"]],
    "constant": ["tiny", [pruning(schedule="constant", include=["dense*"])], []],
    "constant everywhere": ["tiny", [pruning(schedule="constant")], []],
    "from nothing": ["tiny", [pruning(initial_sparsity=0.0)], []],
    "2:4": ["tiny", [["magnitude_pruning", {"pattern": "2:4"}]], ["groups"]],
    "block": ["tiny", [pruning(pattern="block")], ["blocks"]],
    "mixed": ["mixed", [pruning(epochs=1)], []],
    "nested": ["nested", [pruning()], ["momenta"]],
    "one after the other": ["nested", [pruning(include=["head"]), pruning(include=["inner_conv"])], []],
    "none": ["depthwise", "magnitude_pruning", []],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return outcomes(tmp_path_factory.mktemp("pruned"), CASES)


def zeros(case, step=-1):
    return {name.split(":")[0]: share for name, (share, _) in case["tensors"][step].items()}


def test_every_kernel_has_the_zeros_that_were_asked_for(done):
    assert zeros(done["polynomial"]) == pytest.approx(dict.fromkeys(zeros(done["polynomial"]), 0.75), abs=0.01)
    assert done["polynomial"]["score"] > 0.8
    assert (done["polynomial"]["left"], done["polynomial"]["notes"]) == ({}, [])


def test_each_schedule_trains_on_another_way_to_as_many_zeros(done):
    # All else is the same, and training is deterministic: a schedule that is not heeded would give the same weights.
    ways = [done[name] for name in ("polynomial", "constant everywhere", "from nothing")]
    assert len({case["digests"][-1] for case in ways}) == len(ways)
    for case in ways:
        assert zeros(case) == pytest.approx(dict.fromkeys(zeros(case), 0.75), abs=0.01)


def test_only_the_layers_that_were_chosen_are_pruned(done):
    shares = zeros(done["constant"])
    assert {name.split("_")[0].split("/")[0]: round(share, 2) for name, share in shares.items()} == {
        "conv2d": 0,
        "dense": 0.75,
    }
    assert all("left out by include or exclude" in reason for reason in done["constant"]["left"].values())
    assert len(done["constant"]["left"]) == 2


def test_two_of_every_four_inputs_are_zero_and_a_layer_of_one_channel_is_named(done):
    assert done["2:4"]["groups"] == 2
    assert list(done["2:4"]["left"].values()) == [
        "Conv2D: it has 1 input channels; 2:4 takes nothing from fewer than 3"
    ]
    assert sorted(round(share, 2) for share in zeros(done["2:4"]).values()) == [0, 0.5, 0.5]


def test_whole_blocks_are_zero_and_convolutions_are_named(done):
    assert done["block"]["blocks"]
    assert len(done["block"]["left"]) == 2
    assert all("blocks need matrices" in reason for reason in done["block"]["left"].values())


def test_what_tf_mot_does_not_prune_is_left_and_named_and_the_rest_is_pruned(done):
    case = done["mixed"]
    assert case["left"] == {
        "depthwise": "DepthwiseConv2D: TF-MOT does not prune such layers",
        "prelu": "PReLU: TF-MOT does not prune such layers",
        "separable": "SeparableConv2D: TF-MOT leaves its depthwise_kernel",
        "timed": "TimeDistributed: TF-MOT does not prune such layers",
        "both_ways": "Bidirectional: TF-MOT does not prune such layers",
        "own": "Own: TF-MOT does not prune such layers",
    }
    pruned = {name for name, share in zeros(case).items() if share > 0.7}
    assert pruned == {"conv/kernel", "separable/pointwise_kernel", "conv1d/kernel", "head/kernel"}


def test_layers_inside_a_nested_model_are_pruned_and_its_normalization_is_as_it_was(done):
    assert zeros(done["nested"]) == pytest.approx({"inner_conv/kernel": 0.75, "head/kernel": 0.75}, abs=0.01)
    assert done["nested"]["momenta"] == [0.99]
    assert done["polynomial"]["momenta"] == [0.9]


def test_zeros_of_an_earlier_step_outlive_the_training_of_the_next(done):
    first, second = (zeros(done["one after the other"], step) for step in (0, 1))
    assert first["inner_conv/kernel"] < 0.1
    assert second == pytest.approx({"inner_conv/kernel": 0.75, "head/kernel": 0.75}, abs=0.01)


def test_a_model_without_a_layer_to_prune_is_refused_with_each_reason(done):
    assert done["none"]["error"] == (
        "magnitude_pruning can treat no layer of this model: "
        "depthwise: DepthwiseConv2D: TF-MOT does not prune such layers"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "block", "block_size": [1, 4]}, "TF-MOT needs at least 2 inputs and 1 output"),
        ({"block_size": [2, 2]}, "block_size goes with the pattern block; pattern is unstructured"),
        ({"pattern": "2:4", "final_sparsity": 0.9}, "the pattern 2:4 always leaves half, leave it out"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate(settings)
