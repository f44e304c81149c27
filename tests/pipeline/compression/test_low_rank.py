from pathlib import Path

import numpy as np
import pytest
from training_child import prepared, run_child

from pipeline.compression._factors import common_energy, factors, kept
from pipeline.config import load_experiment
from pipeline.errors import ConfigError

CASES = Path(__file__).with_name("low_rank_cases.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run_child(CASES, str(tmp_path_factory.mktemp("low_rank")))


def kernel(*shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def multiplied(first, second, shape, scheme):
    """The kernel that two kernels make together."""
    if len(shape) == 2:
        return first @ second
    if scheme == "channel":
        return np.einsum("hwir,ro->hwio", first, second[0, 0])
    return np.einsum("hir,wro->hwio", first[:, 0], second[0])


@pytest.mark.parametrize("shape", [(6, 9), (3, 3, 4, 5), (1, 1, 6, 4), (5, 2, 3, 8)])
@pytest.mark.parametrize("scheme", ["channel", "spatial"])
def test_two_kernels_make_together_the_truncated_decomposition_at_every_rank(shape, scheme):
    original = kernel(*shape)
    decomposition = factors(original, scheme)
    for rank in range(1, len(decomposition.values) + 1):
        first, second = decomposition.kernels(rank)
        assert first.size + second.size == decomposition.parameters(rank)
        error = np.square(multiplied(first, second, shape, scheme) - original).sum()
        # Eckart and Young: what is lost is what the values left out hold, and no other kernels lose less.
        assert error == pytest.approx(np.square(decomposition.values[rank:]).sum(), rel=1e-5, abs=1e-8)
        assert decomposition.energy(rank) == pytest.approx(1 - error / np.square(original).sum(), abs=1e-6)


def test_a_kernel_of_rank_two_needs_rank_two_for_all_its_energy():
    original = kernel(12, 2) @ kernel(2, 9)
    assert factors(original, "channel").rank_for(0.9999) == 2


def test_a_kernel_of_zeros_has_rank_one():
    decomposition = factors(np.zeros((4, 5), np.float32), "channel")
    assert decomposition.rank_for(0.9) == 1
    assert not np.any(decomposition.kernels(1)[0])


@pytest.mark.parametrize("size", [0.15, 0.4, 0.8])
def test_the_common_energy_keeps_as_much_as_the_size_allows(size):
    layers = [factors(kernel(*shape), "channel") for shape in ((40, 30), (20, 60), (3, 3, 8, 16))]
    full = sum(each.full for each in layers)
    energy = common_energy(layers, size)
    assert kept(layers, energy) <= size * full < kept(layers, energy + 0.01)


@pytest.mark.tensorflow
def test_at_full_rank_every_convolution_gives_what_it_gave(found):
    assert len(found["convolutions"]) == 48
    assert {case: off for case, off in found["convolutions"].items() if off > 1e-4} == {}


@pytest.mark.tensorflow
def test_shared_and_nested_layers_stay_shared_and_nested_and_give_what_they_gave(found):
    assert found["shared"] < 1e-4
    names = [name for name in found["shared_layers"] if "input" not in name and "tf." not in name]
    assert sorted(names) == ["add", "d", "d_basis", "inner/c", "inner/c_basis", "shared/one", "shared/one_basis"]


@pytest.mark.tensorflow
def test_activation_bias_and_regularizers_go_to_the_layer_that_they_belong_to(found):
    assert found["settings"] == {
        "activations": ["linear", "relu"],
        "biases": [False, True],
        "kernel_regularizers": [True, True],
        "bias_regularizers": [False, True],
        "activity_regularizers": [False, True],
        "trainable": [False, False],
    }


@pytest.mark.tensorflow
def test_every_layer_with_a_kernel_that_is_left_is_named_with_the_reason(found):
    assert found["other"]["ranks"] == {"big": 1, "last": 1}
    assert sorted(found["other"]["left"]) == [
        "attend: MultiHeadAttention: only Dense and Conv2D are decomposed",
        "bound: Conv2D: its kernel's constraint MaxNorm would not hold for a product of two",
        "depthwise: DepthwiseConv2D: only Dense and Conv2D are decomposed",
        "grouped: Conv2D: has 2 groups, whose kernels are not one matrix",
        "lstm: LSTM: only Dense and Conv2D are decomposed",
        "square: Dense: left out by include or exclude",
    ]
    assert [text.split(": ", 1)[1] for text in found["none"]["left"]] == ["Conv2D: convolution is none"] * 2


@pytest.mark.tensorflow
def test_energy_gives_each_layer_the_least_rank_that_keeps_it(found):
    energy = found["energy"]
    assert min(energy["energies"]) >= 0.7 > max(energy["one_less"])


@pytest.mark.tensorflow
@pytest.mark.parametrize("how", ["energy", "size", "other"])
def test_the_model_has_just_as_many_parameters_less_as_its_layers(found, how):
    before, after = found[how]["parameters"]
    assert before - after == found[how]["saved"] > 0


@pytest.mark.tensorflow
def test_size_is_reached_from_below(found):
    assert 0.3 < found["size"]["share"] <= 0.4


@pytest.mark.tensorflow
def test_a_model_of_low_rank_can_be_decomposed_again(found):
    assert len(set(found["twice"])) == len(found["twice"]) > 6
    assert {"d1_basis", "d1_basis_", "d1"} <= set(found["twice"])


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "no gain",
            "low_rank can make no layer smaller: d: Dense: at rank 2 of 2 it would have 16 weights instead of 12",
        ),
        (
            "size",
            "size is 0.1, but even at rank 1 these layers keep 8 of 12 weights; expected at least 0.6667",
        ),
        ("none", "low_rank can make no layer smaller: the model has no kernels"),
        (
            "subclassed",
            "model own (Subclassed) is subclassed or not built: it has no graph of layers to rewrite; "
            "expected a functional or sequential model",
        ),
    ],
)
def test_a_model_that_cannot_get_smaller_is_refused_before_training(found, case, message):
    assert found["refused"][case] == message


@pytest.mark.tensorflow
def test_without_epochs_no_labels_are_needed(found):
    assert found["untrained"]["layers"] == 1
    assert found["untrained"]["message"].startswith("fine-tuning needs x_train and y_train")


@pytest.mark.tensorflow
def test_two_processes_make_the_same_flatbuffer(found, tmp_path):
    again = run_child(CASES, str(tmp_path), "sha256")
    assert again["sha256"] == found["sha256"]
    assert "weights of these layers:" in again["notes"][0]


@pytest.mark.parametrize("asked", ["{}", "{rank: 3, size: 0.5}"])
def test_exactly_one_measure_of_rank_is_asked_for(tmp_path, asked):
    path = tmp_path / "e.yaml"
    text = f"name: x\nmodel: m.keras\ndata: {{file: d.npz}}\nmetric: top1\nvariants:\n  v:\n    - low_rank: {asked}\n"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"low_rank is a mapping; expected exactly one of rank, energy and size"):
        load_experiment(path)


@pytest.mark.tensorflow
def test_a_keras_3_model_of_low_rank_learns_from_its_teacher_and_is_quantized(bench, steps):
    taught = "low_rank: {size: 0.6, epochs: 1, distillation: {temperature: 3}}"
    variants = f"  low:\n    - {taught}\n    - quantization: {{mode: int8}}\n"
    builder, source = prepared(bench.experiment(variants=variants), bench.folder / "cache", steps)
    artifact, _ = builder.build(source, builder.experiment.variants[0], lambda done, text: None)
    step, last = artifact.evidence
    # The network of tiny_models has this many.
    assert step.parameters < 72 + 32 + 584 + 1156
    assert "of the energy" in step.notes[0]
    assert any(tensor.dtype == "int8" for tensor in last.tensors)
