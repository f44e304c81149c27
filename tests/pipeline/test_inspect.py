"""``edgepress inspect`` through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.flatbuffer.recipe import Recipe, RecipeStep, with_recipe

NETWORK = (Path(__file__).parents[1] / "data" / "models" / "network.tflite").read_bytes()
RECIPE = Recipe(
    steps=(RecipeStep("quantization", {"mode": "int8", "calibration_samples": 20}),),
    inputs={"model": "a" * 64, "x_train": "b" * 64},
    toolchain={"tensorflow": "2.21.0"},
    seed=3,
    runtime="litert",
    calibration_indices=tuple(range(0, 40, 2)),
)


def inspect(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("edgepress")), "inspect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={"COLUMNS": "200", "PYTHONPATH": _path()})


def _path() -> str:
    return str(Path(__file__).parents[2])


@pytest.fixture
def artifact(tmp_path) -> Path:
    path = tmp_path / "a.tflite"
    path.write_bytes(with_recipe(NETWORK, RECIPE))
    return path


def test_recipe_operators_tensors_and_cost_are_printed(artifact):
    done = inspect(artifact)
    assert done.returncode == 0, done.stderr
    said = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in (
        f"raw {artifact.stat().st_size:,} bytes",
        "parameters 580",
        "MACs 512 an inference",
        "step 1 quantization (calibration_samples 20, mode int8)",
        "seed 3",
        f"sha256 of model {'a' * 64}",
        f"sha256 of x_train {'b' * 64}",
        "calibration 20 training samples: 0, 2, 4, 6, 8, 10, 12, 14, …",
        "toolchain tensorflow 2.21.0",
        "FULLY_CONNECTED 1 2 512",
    ):
        assert line in said, said
    assert [line for line in said if line == "t1 64×4 float32 1,024 5.9% 17 —"]


def test_scales_are_printed_for_each_tensor_or_channel():
    done = inspect(Path(__file__).parents[2] / "device_agent" / "golden" / "golden.tflite")
    said = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in (
        "output tensor15 1×10 int8 scale 0.015, zero point 5",
        "tensor1 8×3×3×3 int8 216 0.5% 147 8 scales on axis 0, 0.00115 to 0.00351",
        "tensor14 10×8 int8 80 0.0% 69 scale 0.01, zero point 0",
    ):
        assert line in said, said


def test_json_has_everything(artifact):
    found = json.loads(inspect("--json", artifact).stdout)
    assert found["recipe"]["calibration_indices"] == list(range(0, 40, 2))
    assert found["recipe"]["steps"][0]["settings"]["mode"] == "int8"
    assert (found["parameters"], found["macs"], found["size_bytes"]) == (580, 512, artifact.stat().st_size)
    computed = [tensor for tensor in found["tensors"] if not tensor["constant"]]
    assert [tensor["size_bytes"] for tensor in computed] == [None] * 3
    assert found["operators"] == [{"name": "FULLY_CONNECTED", "version": 1, "count": 2, "macs": 512, "custom": False}]


def test_a_file_without_a_recipe_says_so(tmp_path):
    (tmp_path / "plain.tflite").write_bytes(NETWORK)
    assert "the file does not say how it was made" in inspect(tmp_path / "plain.tflite").stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "nothing.tflite: no such file; expected a .tflite file"),
        (b"hello, world", "nothing.tflite: content begins with b'hello, w'; expected a .tflite file"),
        (NETWORK[: len(NETWORK) // 2], "nothing.tflite: a damaged .tflite file: "),
    ],
    ids=["missing", "text", "cut"],
)
def test_a_file_that_is_none_is_one_message(tmp_path, content, said):
    if content is not None:
        (tmp_path / "nothing.tflite").write_bytes(content)
    done = inspect(tmp_path / "nothing.tflite")
    assert (done.returncode, "Traceback" in done.stderr, done.stdout) == (2, False, "")
    assert said in done.stderr


def test_a_folder_is_one_message(tmp_path):
    done = inspect(tmp_path)
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [f"edgepress: {tmp_path}: cannot be read: Is a directory; expected a .tflite file"],
    )


def test_names_in_a_file_cannot_steer_the_terminal(tmp_path):
    assert NETWORK.count(b"t1\0") == 1
    (tmp_path / "coloured.tflite").write_bytes(NETWORK.replace(b"t1\0", b"\x1b[\0"))
    done = inspect(tmp_path / "coloured.tflite")
    assert (done.returncode, "\x1b" in done.stdout) == (0, False)


def test_no_tensorflow_is_loaded(artifact):
    code = "import sys; from pipeline.cli import cli; cli(['inspect', sys.argv[1]], standalone_mode=False)\n"
    heavy = "print([name for name in ('tensorflow', 'keras', 'tf_keras', 'pandas') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code + heavy, str(artifact)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
