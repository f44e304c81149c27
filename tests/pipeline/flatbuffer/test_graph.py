"""Reading files that are damaged: whatever is in them, a ModelError at most comes out."""

import random
from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.flatbuffer import costs
from pipeline.flatbuffer.graph import read_model
from pipeline.flatbuffer.recipe import Recipe, recipe_of, with_recipe
from pipeline.inspection import inspect_file

MODELS = {path.stem: path.read_bytes() for path in (Path(__file__).parents[2] / "data" / "models").glob("*.tflite")}
MODELS["with_recipe"] = with_recipe(MODELS["network"], Recipe((), {"model": "a" * 64}, {"keras": "3"}, 0, "litert"))


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def overwritten(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 3, 20, 200))):
        damaged[chance.randrange(8, len(damaged))] = chance.choice((0, 1, 127, 128, 255))
    return bytes(damaged)


@pytest.mark.parametrize("damage", [cut, overwritten])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_damaged_file_is_read_or_refused_with_a_model_error(tmp_path, name, damage):
    chance, refused = random.Random(f"{name} {damage.__name__}"), 0
    path = tmp_path / "damaged.tflite"
    for _ in range(60):
        path.write_bytes(damage(MODELS[name], chance))
        try:
            inspect_file(path)
        except ModelError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
    assert refused > 10


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "content begins with b''; expected a .tflite file"),
        (b"PK\3\4 something else", "expected a .tflite file"),
        (MODELS["network"][:20], "a damaged .tflite file: "),
        (b"\x1c\0\0\0TFL3" + b"\xff" * 64, "a damaged .tflite file: "),
        (b"\x1c\0\0\0TFL3" + bytes(64), "a damaged .tflite file: "),
    ],
    ids=["empty", "zip", "cut", "ones", "zeros"],
)
def test_a_file_that_is_none_is_told(content, said):
    with pytest.raises(ModelError) as refused:
        read_model(content)
    assert said in str(refused.value)


def test_a_graph_that_calls_itself_is_counted_once():
    model = read_model(MODELS["recursive_if"])
    assert (costs.macs(model), recipe_of(MODELS["recursive_if"])) == (0, None)
