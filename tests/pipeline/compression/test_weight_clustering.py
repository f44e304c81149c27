import pytest
from tfmot_cases import outcomes

pytestmark = pytest.mark.tensorflow


def clustering(**settings):
    return ["weight_clustering", {"clusters": 8, **settings}]


PRUNING = ["magnitude_pruning", {"final_sparsity": 0.6}]
CASES = {
    "dense": ["tiny", [clustering()], []],
    "linear": ["tiny", [clustering(initialization="linear")], []],
    "density_based": ["tiny", [clustering(initialization="density_based")], []],
    "random": ["tiny", [clustering(initialization="random")], []],
    "pruned": ["nested", [PRUNING, clustering()], []],
    "two": ["tiny", [["magnitude_pruning", {"include": ["dense*"]}], clustering(clusters=2)], []],
    "one after the other": [
        "nested",
        [clustering(include=["head"]), clustering(clusters=4, include=["inner_conv"], initialization="linear")],
        [],
    ],
    "mixed": ["mixed", [clustering(initialization="density_based", epochs=1)], []],
    "none": ["depthwise", "weight_clustering", []],
    "small": ["nested", [clustering(clusters=200, include=["inner_conv"])], []],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return outcomes(tmp_path_factory.mktemp("clustered"), CASES)


def tensors(case, step=-1):
    return {name.split(":")[0]: tuple(state) for name, state in case["tensors"][step].items()}


def test_every_kernel_has_at_most_as_many_values_as_were_asked_for(done):
    assert [distinct for _, distinct in tensors(done["dense"]).values()] == [8, 8, 8]
    assert (done["dense"]["left"], done["dense"]["notes"]) == ({}, [])
    assert done["dense"]["score"] > 0.8


def test_each_initialization_finds_other_clusters_and_no_more_of_them(done):
    ways = [done[name] for name in ("dense", "linear", "density_based", "random")]
    assert len({case["digests"][-1] for case in ways}) == len(ways)
    for case in ways:
        assert all(2 <= distinct <= 8 for _, distinct in tensors(case).values())
        assert case["score"] > 0.8


def test_zeros_of_a_pruned_model_stay_and_are_one_of_the_clusters(done):
    pruned, clustered = (tensors(done["pruned"], step) for step in (0, 1))
    assert list(pruned) == list(clustered) == ["inner_conv/kernel", "head/kernel"]
    for name, (share, distinct) in clustered.items():
        assert share >= pruned[name][0] - 0.001
        assert distinct <= 8
    assert done["pruned"]["notes"] == [
        "zeros are kept, as one of the clusters, in inner_conv/kernel, head/kernel",
    ]


def test_two_clusters_cannot_keep_zeros_and_the_layer_is_named(done):
    [reason] = done["two"]["left"].values()
    assert reason == "Dense: it is pruned, and 2 clusters cannot keep its zeros; 3 can"
    [share] = [share for share, distinct in tensors(done["two"]).values() if distinct > 2]
    assert share == pytest.approx(0.8, abs=0.01)


def test_clusters_of_an_earlier_step_outlive_the_training_of_the_next(done):
    assert {name: distinct for name, (_, distinct) in tensors(done["one after the other"]).items()} == {
        "inner_conv/kernel": 4,
        "head/kernel": 8,
    }


def test_what_tf_mot_does_not_cluster_is_left_and_named_and_the_rest_is_clustered(done):
    case = done["mixed"]
    assert case["left"] == {
        "depthwise": "DepthwiseConv2D: TF-MOT does not cluster such layers",
        "prelu": "PReLU: TF-MOT does not cluster such layers",
        "separable": "SeparableConv2D: TF-MOT leaves its depthwise_kernel",
        "timed": "TimeDistributed: TF-MOT does not cluster such layers",
        "own": "Own: TF-MOT does not cluster such layers",
    }
    few = {name for name, (_, distinct) in tensors(case).items() if distinct <= 8}
    assert {"conv/kernel", "separable/pointwise_kernel", "conv1d/kernel", "head/kernel"} <= few
    assert sum(name.startswith("both_ways/") for name in few) == 4


def test_a_model_without_a_layer_to_cluster_is_refused_with_each_reason(done):
    assert done["none"]["error"].startswith("weight_clustering can treat no layer of this model: depthwise: Depthwise")
    assert "inner_conv: Conv2D: it has 72 weights, no more than clusters" in done["small"]["error"]
