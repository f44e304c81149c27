"""Variants built from lists of steps: what is refused before training, what is shared, what is told of each step."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.building import evidence
from pipeline.building.variants import build_all
from pipeline.errors import StepError
from pipeline.export import gzip_size
from pipeline.reporting.progress import NoProgress, NoStage

pytestmark = pytest.mark.tensorflow

PRUNED = "    - magnitude_pruning: {final_sparsity: 0.6, epochs: 1}\n"
CLUSTERED = "    - weight_clustering: {clusters: 8, epochs: 1}\n"
INT8 = "    - quantization: {mode: int8}\n"
TRAINED_FOR_INT8 = "    - quantization_aware_training: {epochs: 1}\n"


class Told(NoProgress):
    """Keeps what each stage said, in the order in which it came."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def stage(self, name: str, total: int | None = None, unit: str = "steps") -> NoStage:
        told = self

        class Stage(NoStage):
            def update(self, done: int, total: int | None = None) -> None:
                told.add(name, "under way" if done else "")

            def finish(self, text: str = "done") -> None:
                told.add(name, text)

        return Stage()

    def add(self, name: str, text: str) -> None:
        with self._lock:
            self.events.append((name, text))

    def first(self, name: str, text: str) -> int:
        return next(place for place, event in enumerate(self.events) if event[0] == name and event[1].startswith(text))


class Workshop:
    """Builds variants with a cache of their own."""

    def __init__(self, bench, steps) -> None:
        self.bench, self.steps, self.told = bench, steps, Told()

    def build(self, variants: str, **asked: str):
        builder, source = self.bench.prepared(self.steps, variants=variants, **asked)
        return {variant.name: variant for variant in build_all(builder, source, self.told)}

    @property
    def trained(self) -> int:
        """How many models steps have left."""
        return len(list((self.bench.home / ".cache" / "edgepress" / "builds").glob("*/model.keras")))


@pytest.fixture
def workshop(fresh_bench, steps):
    return Workshop(fresh_bench, steps)


def test_a_step_is_asked_about_what_the_one_before_it_leaves(workshop):
    split = "  split:\n    - low_rank: {rank: 2, epochs: 0}\n"
    [variant] = workshop.build(
        f'{split}    - magnitude_pruning: {{include: ["*_basis"], final_sparsity: 0.5, epochs: 1}}\n'
    ).values()
    assert variant.failure is None
    zeros = {tensor.name: tensor.zeros for tensor in variant.artifact.evidence[1].tensors if "kernel" in tensor.name}
    assert {round(share, 1) for name, share in zeros.items() if "_basis" in name} == {0.5}
    assert max(share for name, share in zeros.items() if "_basis" not in name) < 0.1


REFUSED = {
    "trained for int8 twice": (
        TRAINED_FOR_INT8 * 2,
        "quantization_aware_training: quantization_aware_training cannot treat this model: it has been trained under",
    ),
    "a mode that does not fit": (
        f"{TRAINED_FOR_INT8}    - quantization: {{mode: float16}}\n",
        "quantization: mode float16 does not fit a model of quantization-aware training",
    ),
    "a layer left in float": (
        "    - low_rank: {rank: 3, epochs: 1, strict: true}\n",
        "low_rank: strict is true, and these layers cannot be treated: conv2d: Conv2D: at rank 3 of ",
    ),
    "an operator left in float": (
        f"{PRUNED}    - quantization: {{mode: dynamic_range, strict: true}}\n",
        "quantization: strict is true, and these layers cannot be treated: conv2d: CONV_2D: weights stay float32: 72, ",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_said_before_anything_is_trained(workshop, case):
    steps, message = REFUSED[case]
    built = workshop.build(f"  good:\n{PRUNED}  bad:\n{steps}")
    assert built["bad"].failure.kind == "build"
    assert built["bad"].failure.message.startswith(f"bad: {message}")
    assert built["good"].failure is None
    assert workshop.trained == 1


def test_strict_says_so_of_a_conversion_by_itself_too_and_not_of_what_was_left_out(workshop):
    built = workshop.build(
        "  small:\n    - quantization: {mode: dynamic_range, strict: true}\n"
        '  chosen:\n    - magnitude_pruning: {exclude: ["dense*"], strict: true, epochs: 1}\n'
    )
    assert "strict is true, and these layers cannot be treated: " in built["small"].failure.message
    assert built["chosen"].failure is None
    [left] = built["chosen"].artifact.evidence[0].left
    assert (left.reason, left.chosen) == ("Dense: left out by include or exclude", True)


def test_layers_that_stay_are_named_before_the_first_step_is_under_way(workshop):
    workshop.build(f"  split:\n    - low_rank: {{rank: 3, epochs: 1}}\n{INT8}")
    assert workshop.told.first("low_rank", "leaves conv2d as it is: Conv2D: at rank 3 of 3 it would have") < (
        workshop.told.first("compress split", "under way")
    )


def test_steps_that_variants_begin_with_are_done_once(workshop):
    built = workshop.build(f"  float:\n{PRUNED}  int8:\n{PRUNED}{INT8}  clustered:\n{PRUNED}{CLUSTERED}")
    assert [variant.failure for variant in built.values()] == [None] * 3
    assert workshop.trained == 2
    assert {variant.artifact.evidence[0] for variant in built.values()} == {built["int8"].artifact.evidence[0]}


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core does one after the other")
def test_variants_are_built_side_by_side(workshop):
    workshop.build(f"  a:\n{PRUNED}  b:\n{CLUSTERED}")
    begun = [workshop.told.first(f"compress {name}", "under way") for name in ("a", "b")]
    ended = [workshop.told.first(f"compress {name}", "done") for name in ("a", "b")]
    assert max(begun) < min(ended)


def classes_of(content: bytes, images) -> list[int]:
    """The classes that a flatbuffer of integers has for images of real numbers."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = taken["quantization"]
    classes = []
    for image in images:
        quantized = np.clip(np.round(image / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(taken["index"], quantized[None])
        interpreter.invoke()
        classes.append(int(interpreter.get_tensor(given["index"]).argmax()))
    return classes


def test_the_evidence_is_that_of_the_file(workshop):
    [variant] = workshop.build(f"  small:\n{PRUNED}{INT8}").values()
    rewritten, converted = variant.artifact.evidence
    content = Path(variant.artifact.path).read_bytes()
    assert (converted.size_bytes, converted.gzip_bytes) == (len(content), gzip_size(content))
    with np.load(workshop.bench.models / "data.npz") as data:
        right = classes_of(content, data["x_test"]) == data["y_test"]
    assert (converted.score, converted.samples) == (pytest.approx(right.mean()), 300)
    assert 10 < converted.snr_db <= rewritten.snr_db + 3
    assert rewritten.size_bytes > converted.size_bytes
    assert rewritten.gzip_bytes < rewritten.size_bytes
    # What four numbers of each of 8 channels said of the normalization is a bias now.
    assert rewritten.parameters == converted.parameters + 4 * 8 - 8


def test_a_conversion_that_left_all_weights_as_they_were_is_a_failure():
    network = (Path(__file__).parents[2] / "data" / "models" / "network.tflite").read_bytes()
    with pytest.raises(StepError, match="quantization changed nothing: all 2 weight tensors are still float32"):
        evidence.check_converted("quantization", network)


def test_all_that_trains_learns_from_the_teacher_alone_when_there_are_no_labels(workshop):
    taught = "epochs: 1, distillation: {weight: 1}"
    [variant] = workshop.build(
        "  taught:\n"
        f"    - channel_pruning: {{ratio: 0.5, criterion: l1, round_to: 4, {taught}}}\n"
        f"    - magnitude_pruning: {{{taught}}}\n"
        f"    - weight_clustering: {{clusters: 8, {taught}}}\n"
        f"    - quantization_aware_training: {{{taught}}}\n"
        f"{INT8}",
        data="test_only.npz",
    ).values()
    assert variant.failure is None
    assert [found.step for found in variant.artifact.evidence][:2] == ["channel_pruning", "magnitude_pruning"]
