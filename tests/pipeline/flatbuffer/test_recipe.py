"""The recipe behind a flatbuffer: the same bytes every time, read back, and nothing that a runtime minds."""

import io
import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from runtime_pythons import PYTHONS

from pipeline.errors import ModelError
from pipeline.flatbuffer.recipe import FILE_NAME, Recipe, RecipeStep, recipe_of, with_recipe

NETWORK = (Path(__file__).parents[2] / "data" / "models" / "network.tflite").read_bytes()
RECIPE = Recipe(
    steps=(RecipeStep("magnitude_pruning", {"epochs": 3}), RecipeStep("quantization", {"mode": "int8"})),
    inputs={"model": "a" * 64, "x_train": "b" * 64},
    toolchain={"tensorflow": "2.21.0", "keras": "3.15.1"},
    seed=7,
    runtime="litert",
    scale=1 / 255,
    offset=-0.5,
    calibration_indices=(1, 5, 8),
)

_RUN = """
import sys, numpy as np
path, content = sys.argv[1], open(sys.argv[1], "rb").read()
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter
for given in ({"model_path": path}, {"model_content": content}):
    interpreter = Interpreter(**given)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, np.ones((1, 4), np.float32))
    interpreter.invoke()
    print(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist())
"""
_RUN_COMPILED = """
import sys, numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from device_agent.runtimes.litert import open_profiler
path, content = sys.argv[1], open(sys.argv[1], "rb").read()
for model in (CompiledModel.from_file(path), CompiledModel.from_buffer(content)):
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    inputs[0].write(np.ones((1, 4), np.float32))
    model.run_by_index(0, inputs, outputs)
    print([outputs[0].read(4, np.float32).tolist()])
profiler = open_profiler(path, 1, "xnnpack", 1)
profiler.set_input(0, np.ones((1, 4), np.float32))
profiler.invoke()
"""


def said_by(runtime: str, script: str, path: Path) -> list[str]:
    done = subprocess.run([PYTHONS[runtime], "-c", script, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("[")]


def test_a_recipe_is_read_back_and_always_gives_the_same_bytes():
    content = with_recipe(NETWORK, RECIPE)
    assert content.startswith(NETWORK)
    assert recipe_of(content) == RECIPE
    assert with_recipe(NETWORK, RECIPE) == content
    turned = Recipe(**{**vars(RECIPE), "toolchain": dict(reversed(RECIPE.toolchain.items()))})
    assert with_recipe(NETWORK, turned) == content
    assert recipe_of(NETWORK) is None


def test_unzip_lists_it_and_it_takes_less_than_a_kibibyte_with_200_calibration_samples():
    samples = Recipe(**{**vars(RECIPE), "calibration_indices": tuple(range(0, 60_000, 300))})
    content = with_recipe(NETWORK, samples)
    assert len(content) - len(NETWORK) < 1024
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["edgepress.json"]
        assert json.loads(archive.read(FILE_NAME))["seed"] == 7


@pytest.mark.parametrize(("runtime", "script"), [("litert", _RUN), ("tflite_runtime", _RUN), ("litert", _RUN_COMPILED)])
def test_no_runtime_minds_what_follows_the_flatbuffer(tmp_path, runtime, script):
    for name, content in (("plain", NETWORK), ("with", with_recipe(NETWORK, RECIPE))):
        (tmp_path / name).write_bytes(content)
    plain, found = (said_by(runtime, script, tmp_path / name) for name in ("plain", "with"))
    assert len(plain) == 2
    assert plain == found


def test_files_that_are_associated_already_stay():
    file = io.BytesIO(NETWORK)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", "shirt\n")
    content = with_recipe(file.getvalue(), RECIPE)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt") == b"shirt\n"
    assert recipe_of(content) == RECIPE
    assert recipe_of(file.getvalue()) is None


def test_a_second_recipe_is_refused():
    with pytest.raises(ModelError, match=r"has a recipe already: edgepress\.json"):
        with_recipe(with_recipe(NETWORK, RECIPE), RECIPE)


def with_entry(text: bytes) -> bytes:
    file = io.BytesIO(NETWORK)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(FILE_NAME, text)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (with_entry(b"{"), "edgepress.json in the file is damaged"),
        (with_entry(b'{"schema": 1}'), "edgepress.json in the file is damaged"),
        (with_entry(b"[]"), "edgepress.json in the file is damaged"),
        (with_entry(b'{"schema": 2}'), "has schema 2; this edgepress reads up to 1"),
        (with_entry(bytes(17 << 20)), "says it has 17825792 bytes; at most 16777216 are read"),
    ],
    ids=["cut", "empty", "list", "later", "large"],
)
def test_a_recipe_that_cannot_be_read_is_told(content, said):
    with pytest.raises(ModelError, match=said.replace(".", r"\.")):
        recipe_of(content)


def test_a_damaged_entry_is_told():
    content = bytearray(with_recipe(NETWORK, RECIPE))
    content[len(NETWORK) + 60] ^= 0xFF
    with pytest.raises(ModelError, match="is damaged"):
        recipe_of(bytes(content))
