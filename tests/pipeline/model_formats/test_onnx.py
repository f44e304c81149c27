"""ONNX models through the real converter, and through the real command line."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.flatbuffer.recipe import recipe_of

NEEDED = ("onnx", "onnx2keras", "onnxruntime")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
ROOT = Path(__file__).parents[3]
MAKER = Path(__file__).parents[2] / "tiny_onnx.py"

pytestmark = [pytest.mark.tensorflow, pytest.mark.onnx]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} missing; run make onnx")


@pytest.fixture(scope="module")
def onnx_models(tiny_models) -> Path:
    subprocess.run([sys.executable, str(MAKER), str(tiny_models)], check=True, capture_output=True)
    return tiny_models


@pytest.fixture(scope="module")
def converted(tiny_models, tmp_path_factory) -> dict:
    """What became of each small graph: all in one process."""
    folder = tmp_path_factory.mktemp("converted")
    for name in ("keras3.keras", "data.npz"):
        (folder / name).symlink_to(tiny_models / name)
    made = subprocess.run(
        [sys.executable, str(MAKER), str(folder), "converted"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout.splitlines()[-1])


KINDS = {
    "mobile": {"Conv2D", "DepthwiseConv2D", "ReLU", "GlobalAveragePooling2D", "MaxPooling2D", "Dense"},
    "dense": {"Dense", "BatchNormalization", "Concatenate", "PReLU", "Activation"},
    "series": {"Conv1D", "Dense"},
    "joined": {"Conv2D", "PReLU", "Concatenate", "BatchNormalization", "UpSampling2D", "Softmax", "Dense"},
    "shaped": {"Permute", "Reshape", "Flatten", "Dense"},
    "volume": {"Conv3D", "Dense"},
    "open": {"Conv2D", "GlobalMaxPooling2D"},
}


@needs_onnx
@pytest.mark.parametrize(("name", "kinds"), KINDS.items(), ids=KINDS)
def test_a_graph_with_the_outputs_of_onnx_runtime_has_ordinary_layers(converted, name, kinds):
    found = converted[name]
    assert (found["format"], found["functions"]) == ("keras3", [])
    assert kinds <= {layer.split()[1] for layer in found["layers"]}
    assert not {"Lambda"} & {layer.split()[1] for layer in found["layers"]}


@needs_onnx
def test_channels_come_last_where_there_are_places_and_layers_have_the_nodes_names(converted):
    assert (converted["mobile"]["shape"], converted["mobile"]["moved"]) == ([8, 8, 3], True)
    assert (converted["series"]["shape"], converted["series"]["moved"]) == ([4, 10], False)
    assert converted["open"]["shape"] == [9, 9, 3]
    assert "block_2_Conv DepthwiseConv2D" in converted["mobile"]["layers"]
    assert not [layer for layer in converted["mobile"]["layers"] if layer.endswith("Permute")]


@needs_onnx
def test_a_graph_with_a_part_that_is_no_layer_is_a_saved_model(converted):
    assert (converted["scaled"]["format"], converted["scaled"]["functions"]) == ("saved_model", ["block_0_Mul_const2"])


@needs_onnx
def test_an_onnx_model_goes_from_init_to_report(bench, onnx_models):
    path = bench.initialized("images.onnx", "nchw.npz", "float32", "pruned_int8")
    assert "# An ONNX model, converted once" in path.read_text()
    done = bench.edgepress("run", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "convert ONNX: keras3, outputs as in ONNX Runtime" in done.stdout
    record = bench.record()
    assert all(variant["valid"] for variant in record["variants"])
    by_name = {variant["name"]: variant for variant in record["variants"]}
    assert by_name["float32"]["numbers"]["score"]["value"] > 0.9
    assert by_name["float32"]["artifact"]["inputs"][0]["shape"] == [1, 12, 12, 1]
    pruned = by_name["pruned_int8"]["artifact"]
    assert {"block_0_Conv/kernel:0", "block_6_Gemm/kernel:0"} <= {
        tensor["name"] for tensor in pruned["evidence"][0]["tensors"]
    }
    assert "laid out with channels last" in record["data_source"]
    [run] = (bench.folder / "runs").iterdir()
    recipe = recipe_of((run / pruned["path"]).read_bytes())
    assert recipe.inputs["model"] == hashlib.sha256((bench.models / "images.onnx").read_bytes()).hexdigest()
    assert {"onnx2keras", "ai-edge-litert"} <= set(recipe.toolchain) & set(pruned["toolchain"])
    again = bench.edgepress("run", bench.experiment("images.onnx", "nchw.npz"), "--reuse")
    assert again.stdout.count("from the cache") == 1, again.stdout + again.stderr


REFUSED = {
    "unknown_operators.onnx": "has operators that cannot be converted: HardSwish (/block.0/HardSwish); Gelu (",
    "two_inputs.onnx": "has 2 inputs (x, y); expected one",
    "attention.onnx": "operator MatMul (/block.0/MatMul) cannot be converted: multiplies two tensors",
    "rubbish.onnx": "is not a valid ONNX model: ",
    "wrong.onnx": "gives other outputs once converted than in ONNX Runtime, on 32 samples: largest difference",
    "mobile.onnx": "takes (3, 8, 8) for one sample, in ONNX's order; the samples have shape (1, 12, 12)",
}


@needs_onnx
@pytest.mark.parametrize(("model", "message"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_converted_is_told_with_its_operator(bench, onnx_models, steps, model, message):
    assert f"{model}: {message}" in bench.refusal(steps, model=model, data="nchw.npz")


@pytest.mark.skipif(not MISSING, reason="the packages are there")
def test_without_the_packages_the_command_that_brings_them_is_named(bench):
    (bench.models / "any.onnx").write_bytes(b"\x08\x09")
    done = bench.edgepress("run", bench.experiment("any.onnx"), "--quiet")
    assert f'any.onnx: an ONNX file needs {", ".join(MISSING)}; run "make onnx", or pip' in done.stderr
    assert done.returncode == 2
