import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from training_child import prepared, run_child

from pipeline.config import load_experiment
from pipeline.errors import ConfigError, UsageError

pytestmark = pytest.mark.tensorflow

CASES = Path(__file__).with_name("distillation_cases.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run_child(CASES, str(tmp_path_factory.mktemp("distillation")))


@pytest.mark.parametrize("teacher", ["teacher.keras", "saved_model", "logits.h5"])
def test_a_teacher_of_any_format_teaches_its_logits(found, teacher):
    assert found["teachers"][teacher] < 1e-4


@pytest.mark.parametrize("weight", ["0.25", "1.0"])
def test_the_loss_is_hinton_s_for_logits_and_for_probabilities(found, weight):
    losses = found["losses"][weight]
    np.testing.assert_allclose(losses["logits"], losses["expected"], rtol=1e-5)
    # A probability of e^-200 is 0 in float32: it counts as 1e-30 then, and the slopes stay what they were.
    np.testing.assert_allclose(losses["probabilities"], losses["expected"], rtol=1e-5)
    np.testing.assert_allclose(*losses["slopes"], atol=1e-5)


def test_what_meets_in_a_sum_keeps_the_same_width_and_the_ends_keep_theirs(found):
    assert found["residual"] == {
        "widths": {"a": 5, "b": 5, "gate": 5, "separable": 3, "last_convolution": 6},
        "left": [
            "before: Conv2D: keeps its 6 channels: layer grouped has groups",
            "grouped: Conv2D: keeps its 8 channels: a convolution in groups",
        ],
    }


def test_a_layer_that_cannot_be_narrowed_is_named_with_what_it_holds_back(found):
    assert found["sequence"]["widths"] == {"embedding": 4, "free": 5}
    assert sorted(found["sequence"]["left"]) == [
        "attend: MultiHeadAttention: cannot be made narrower",
        "both_ways: Bidirectional: cannot be made narrower",
        "excluded: Dense: left out by include or exclude",
        "lstm: LSTM: keeps its 8 channels: layer attend (MultiHeadAttention) needs them",
        "reshaped: Dense: keeps its 9 channels: layer square (Reshape) needs them",
    ]


def test_a_nested_model_that_is_shared_is_narrowed_once(found):
    assert found["nested"] == {"widths": {"inner/c": 4}, "left": []}


def test_a_student_does_not_begin_with_zeros(found):
    assert found["fresh_weights"] == [True, True]


def test_a_student_learns_from_a_teacher_without_labels(found):
    before, after = found["without_labels"]
    assert after < before / 2


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "shapes",
            "student small.keras takes (None, 8, 8, 1) and gives (None, 4); "
            "the model takes (None, 12, 12, 1) and gives (None, 4); expected the same shapes",
        ),
        ("broken", "content begins with b'nothing'; expected a Keras .keras or .h5 file"),
        ("ends", "distillation can make no layer narrower: all widths are the model's own ends"),
        (
            "answers",
            "the teacher answers one sample with shape (4,) and this model with (1,); expected the same, of two "
            "classes at least",
        ),
        (
            "labels",
            "distillation with weight 0.5 needs x_train and y_train; the data has only test samples: only weight 1 "
            "can do without labels",
        ),
    ],
)
def test_what_cannot_be_distilled_is_refused_with_the_reason(found, case, message):
    assert message in found["refused"][case]


def test_two_processes_make_the_same_students(found, tmp_path):
    again = run_child(CASES, str(tmp_path), "sha256")
    assert again["sha256"] == found["sha256"]
    assert len(set(again["sha256"])) == 2
    assert "parameters, the model before" in again["notes"][0]


def configured(tmp_path, asked):
    path = tmp_path / "e.yaml"
    text = f"name: x\nmodel: m.keras\ndata: {{file: d.npz}}\nmetric: top1\nvariants:\n  v:\n    - {asked}\n"
    path.write_text(text)
    return load_experiment(path).variants[0].steps[0]


@pytest.mark.parametrize("asked", ["{}", "{student: s.keras, width: 0.5}"])
def test_exactly_one_student_is_asked_for(tmp_path, asked):
    with pytest.raises(ConfigError, match=r"distillation is a mapping; expected exactly one of student and width"):
        configured(tmp_path, f"distillation: {asked}")


def test_a_student_from_a_file_has_no_layers_to_choose(tmp_path):
    with pytest.raises(ConfigError, match="include and exclude go with width; a student from a file is taken as it is"):
        configured(tmp_path, 'distillation: {student: s.keras, exclude: ["a"]}')


def test_a_path_in_a_step_is_relative_to_the_experiment_s_file(tmp_path):
    step = configured(tmp_path, "distillation: {student: small/s.keras}")
    assert step.settings["student"] == str(tmp_path / "small" / "s.keras")
    assert str(step) == "distillation (student small/s.keras)"


def test_distillation_is_an_option_of_a_step_that_fine_tunes(tmp_path):
    step = configured(tmp_path, "magnitude_pruning: {distillation: {temperature: 2}}")
    assert step.settings["distillation"] == {"temperature": 2.0, "weight": 0.5}
    assert str(step) == "magnitude_pruning (distillation (temperature 2.0))"
    with pytest.raises(ConfigError, match=r"distillation.weight is 2; expected a number above 0 and at most 1"):
        configured(tmp_path, "magnitude_pruning: {distillation: {weight: 2}}")


def test_what_is_built_depends_on_the_content_of_a_student_not_on_its_path(bench, steps):
    first, second = bench.folder / "first.keras", bench.folder / "second.keras"
    shutil.copy(bench.models / "keras3.keras", first)

    def keys(student):
        variants = f"  small:\n    - distillation: {{student: {student}, epochs: 1}}\n"
        builder, source = prepared(bench.experiment(variants=variants), bench.folder / "cache", steps)
        [variant] = builder.experiment.variants
        assert [survey.left for survey in builder.survey(source, variant)] == [()]
        return [node.key for node in builder.chain(source, variant)]

    before = keys("first.keras")
    first.rename(second)
    assert keys("second.keras") == before
    shutil.copy(bench.models / "keras2.h5", second)
    assert not set(keys("second.keras")) & set(before)
    with pytest.raises(UsageError, match=re.escape(f"distillation.student is {first}: no such file")):
        keys("first.keras")
