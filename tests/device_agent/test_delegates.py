"""What takes operators over from the runtime's kernels, in the real runtimes on tiny models."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from runtime_pythons import open_in
from tiny_tflite import make_once

from device_agent.delegation import delegation_of, operators_to_bytes
from device_agent.protocol import Delegation
from device_agent.runtimes import DelegateUnavailable, Operator, null
from device_agent.runtimes._operators import marked_operators

SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
needs_gpu = pytest.mark.skipif(
    not SWIFTSHADER.is_file(), reason=f"{SWIFTSHADER}, the software Vulkan device of Debian's chromium, is not there"
)
PLAIN = ["CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_once(tmp_path_factory.getbasetemp())


@pytest.fixture
def gpu(tmp_path):
    # The package also has the Vulkan loader, which a machine without a GPU may lack.
    return {
        "VK_DRIVER_FILES": str(SWIFTSHADER),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "LD_LIBRARY_PATH": str(SWIFTSHADER.parent),
    }


def listed(operators):
    return [(operator["place"], operator["name"], operator["delegated"]) for operator in operators]


@pytest.mark.tensorflow
@pytest.mark.parametrize("runtime", ["litert", "tflite_runtime"])
def test_with_and_without_xnnpack_the_outputs_agree_and_the_operators_tell_which(models, runtime):
    on, off = (open_in(runtime, models / "plain.tflite", delegate) for delegate in ("xnnpack", "none"))
    assert np.array(on["output"]) == pytest.approx(np.array(off["output"]), abs=1e-6)
    assert on["output"] != off["output"], "the same kernels ran both times"
    assert listed(on["operators"]) == [(place, name, True) for place, name in enumerate(PLAIN)]
    assert listed(off["operators"]) == [(place, name, False) for place, name in enumerate(PLAIN)]


@pytest.mark.tensorflow
@pytest.mark.parametrize("runtime", ["litert", "tflite_runtime"])
def test_an_operator_that_xnnpack_does_not_take_is_left(models, runtime):
    answer = open_in(runtime, models / "mixed.tflite", "xnnpack")
    assert answer["delegation"] == {
        "delegate": "xnnpack",
        "operators": 6,
        "delegated": 5,
        "left": ["REVERSE_V2"],
        "file_name": "a file",
    }
    assert [operator["name"] for operator in answer["operators"] if not operator["delegated"]] == ["REVERSE_V2"]
    assert open_in(runtime, models / "mixed.tflite", "none")["delegation"]["delegated"] == 0


@pytest.mark.tensorflow
@pytest.mark.parametrize("runtime", ["litert", "tflite_runtime"])
@pytest.mark.parametrize("delegate", ["xnnpack", "none"])
def test_a_batch_of_4_gives_the_outputs_of_its_samples(models, runtime, delegate):
    batch = open_in(runtime, models / "plain.tflite", delegate, 4)
    single = open_in(runtime, models / "plain.tflite", delegate)
    assert (batch["inputs"][0][1], batch["output_shape"]) == ([4, 8, 8, 1], [4, 10])
    assert batch["output"][0] == pytest.approx(single["output"][0], abs=1e-6)
    assert batch["output"][0] != pytest.approx(batch["output"][3], abs=1e-3)
    assert {operator["delegated"] for operator in batch["operators"]} == {delegate == "xnnpack"}


@pytest.mark.tensorflow
@pytest.mark.parametrize("runtime", ["litert", "tflite_runtime"])
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("fixed", "the model's graph fixes another; the runtime says: "),
        ("one_row", r'output "Identity" has the shape \[1, 1152\] for it; the model\'s graph fixes the batch'),
    ],
)
def test_a_graph_that_fixes_the_batch_is_refused_with_the_batch(models, runtime, model, reason):
    answer = open_in(runtime, models / f"{model}.tflite", "xnnpack", 4)
    assert answer["error"] == "BatchRefused"
    with pytest.raises(AssertionError, match=f"a batch of 4 is not possible: {reason}"):
        raise AssertionError(answer["message"])


@pytest.mark.tensorflow
def test_the_gpu_is_refused_on_tflite_runtime_with_what_it_has(models):
    answer = open_in("tflite_runtime", models / "plain.tflite", "gpu")
    assert answer == {
        "error": "DelegateUnavailable",
        "message": 'tflite_runtime has no delegate "gpu"; it has xnnpack, none',
    }


@needs_gpu
@pytest.mark.tensorflow
def test_the_gpu_agrees_with_the_cpu_and_takes_all_operators(models, gpu):
    on_gpu = open_in("litert", models / "plain.tflite", "gpu", environment=gpu)
    on_cpu = open_in("litert", models / "plain.tflite", "xnnpack")
    assert np.array(on_gpu["output"]) == pytest.approx(np.array(on_cpu["output"]), abs=1e-4)
    assert on_gpu["inputs"] == on_cpu["inputs"]
    assert listed(on_gpu["operators"]) == [(place, name, True) for place, name in enumerate(PLAIN)]
    assert on_gpu["delegation"]["left"] == []


@needs_gpu
@pytest.mark.tensorflow
def test_a_batch_of_4_on_the_gpu_gives_the_outputs_of_its_samples(models, gpu):
    on_gpu = open_in("litert", models / "plain.tflite", "gpu", 4, environment=gpu)
    on_cpu = open_in("litert", models / "plain.tflite", "xnnpack", 4)
    assert np.array(on_gpu["output"]) == pytest.approx(np.array(on_cpu["output"]), abs=1e-4)
    refused = open_in("litert", models / "fixed.tflite", "gpu", 4, environment=gpu)
    assert refused["error"] == "BatchRefused"
    assert "a batch of 4 is not possible on the gpu: " in refused["message"]


@needs_gpu
@pytest.mark.tensorflow
def test_a_model_that_the_gpu_takes_only_in_part_is_refused(models, gpu):
    answer = open_in("litert", models / "integer.tflite", "gpu", environment=gpu)
    assert answer["error"] == "DelegateUnavailable"
    assert "litert cannot run this model on the gpu: Some ops are not accelerated" in answer["message"]


@pytest.mark.tensorflow
def test_without_a_vulkan_device_the_gpu_is_refused_with_what_it_needs(models, tmp_path):
    no_device = {"VK_DRIVER_FILES": str(tmp_path / "none.json"), "XDG_RUNTIME_DIR": str(tmp_path)}
    answer = open_in("litert", models / "plain.tflite", "gpu", environment=no_device)
    assert answer["error"] == "DelegateUnavailable"
    assert "litert cannot run this model on the gpu: " in answer["message"]
    assert "it needs libvulkan.so.1, a Vulkan device, and a model" in answer["message"]


def test_a_delegate_that_the_runtime_lacks_is_a_failure_of_its_own_kind(agent, host):
    model = dataclasses.replace(agent.null_model(output=[1.0, 0.0, 0.0, 0.0]), delegate="gpu")
    [failure] = host.measure(agent.spec(model)).failures
    assert (failure.kind, failure.message) == ("delegate", 'null has no delegate "gpu"; it has xnnpack, none')


def test_the_stand_in_takes_a_batch(tmp_path):
    path = tmp_path / "model.json"
    path.write_text('{"input_shape": [1, 4], "output": [0.25, 0.75]}')
    model = null.open_model(str(path), 1, "none", 3)
    assert (model.inputs[0].shape, model.outputs[0].shape) == ((3, 4), (3, 2))
    assert model.get_output(0).tolist() == [[0.25, 0.75]] * 3
    with pytest.raises(DelegateUnavailable, match='null has no delegate "gpu"; it has xnnpack, none'):
        null.open_model(str(path), 1, "gpu", 1)


def test_a_runtime_that_tells_of_no_operators_has_a_delegation_of_none(tmp_path):
    path = tmp_path / "model.json"
    path.write_text('{"input_shape": [1, 4]}')
    model = null.open_model(str(path), 1, "xnnpack", 1)
    assert delegation_of(model, "xnnpack", "x.json") == Delegation("xnnpack", 0, 0, (), "x.json")
    assert operators_to_bytes(model) == b"[]"


def node(name, inputs, outputs):
    return {"op_name": name, "inputs": inputs, "outputs": outputs}


def test_a_delegate_replaces_what_lies_between_its_outputs_and_its_inputs():
    own = [node("A", [0, -1], [1]), node("B", [1], [2]), node("C", [2], [3]), node("D", [2, 3], [4])]
    delegates = [node("DELEGATE", [2], [4])]
    assert marked_operators([*own, *delegates], 4) == (
        Operator("A", False),
        Operator("B", False),
        Operator("C", True),
        Operator("D", True),
    )


def test_parts_side_by_side_are_told_apart():
    own = [node("A", [0], [1]), node("B", [1], [2]), node("C", [1], [3])]
    assert marked_operators([*own, node("DELEGATE", [0], [1]), node("DELEGATE", [1], [3])], 3) == (
        Operator("A", True),
        Operator("B", False),
        Operator("C", True),
    )
