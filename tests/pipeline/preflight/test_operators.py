"""The table of operators against the wheels themselves, and what is said of an operator that is not in it."""

import json
import subprocess
from dataclasses import replace

import pytest
from runtime_pythons import PYTHONS
from tiny_flatbuffers import of_code

from pipeline.flatbuffer.graph import FlatModel, FlatOperator, Subgraph, read_model
from pipeline.preflight.operators import known_operators, refused_operators

# More than any operator has.
VERSIONS = range(17)

_ASK = """
import json, pathlib, sys
try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter
taken = []
for path in pathlib.Path(sys.argv[1]).iterdir():
    try:
        Interpreter(model_path=str(path))
        taken.append(path.name)
    except (RuntimeError, ValueError):
        pass
print(json.dumps(taken))
"""


@pytest.fixture(scope="module")
def one_operator_each(tmp_path_factory):
    """A file for each operator and version that names it and uses it not: a runtime that lacks it refuses the file."""
    from ai_edge_litert import schema_py_generated as schema

    folder = tmp_path_factory.mktemp("operators")
    codes = {name: code for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    for name, code in codes.items():
        for version in VERSIONS:
            (folder / f"{name}.{version}").write_bytes(of_code(code, version))
    return folder


@pytest.mark.parametrize("known", known_operators().values(), ids=lambda known: known.runtime)
def test_the_table_is_what_the_runtime_itself_takes(known, one_operator_each):
    python = PYTHONS[known.runtime.split()[0]]
    asked = subprocess.run([python, "-c", _ASK, str(one_operator_each)], capture_output=True, text=True, check=True)
    taken: dict[str, list[int]] = {}
    for file in json.loads(asked.stdout.splitlines()[-1]):
        name, version = file.split(".")
        taken.setdefault(name, []).append(int(version))
    found = {name: (min(versions), max(versions)) for name, versions in taken.items() if name != "CUSTOM"}
    assert found == known.builtin


def model_with(operator: FlatOperator) -> FlatModel:
    return FlatModel((Subgraph((), (operator,), (), ()),))


RT = known_operators()["tflite_runtime 2.14.0"]


@pytest.mark.parametrize(
    ("operator", "said"),
    [
        (
            FlatOperator("CAST", 7, (), (), None),
            'CAST version 7: tflite_runtime 2.14.0 knows it up to version 5; with "runtime: litert" it would run: '
            "version 2.3.0 knows it up to version 9",
        ),
        (
            FlatOperator("REDUCE_WINDOW", 1, (), (), None),
            'REDUCE_WINDOW: tflite_runtime 2.14.0 has no such operator; with "runtime: litert" it would run: version '
            "2.3.0 knows it up to version 1",
        ),
        (
            FlatOperator("BROADCAST_TO", 1, (), (), None),
            "BROADCAST_TO version 1: tflite_runtime 2.14.0 knows it from version 2 up to version 3",
        ),
        (
            FlatOperator("FlexErf", 1, (), (), None, custom=True),
            "custom operator FlexErf: tflite_runtime 2.14.0 has only AudioSpectrogram, Mfcc, NumericVerify, "
            "TFLite_Detection_PostProcess; convert the model without SELECT_TF_OPS, of operators that TensorFlow Lite "
            "has itself",
        ),
        # A custom operator may have the name of a builtin one.
        (
            FlatOperator("RFFT2D", 1, (), (), None, custom=True),
            "custom operator RFFT2D: tflite_runtime 2.14.0 has only AudioSpectrogram, Mfcc, NumericVerify, "
            "TFLite_Detection_PostProcess",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, FlatOperator) else "",
)
def test_an_operator_that_the_runtime_lacks_is_named_with_the_limit_and_the_way_out(operator, said):
    assert refused_operators(model_with(operator), RT) == (said,)
    assert refused_operators(model_with(replace(operator, name="ADD", version=1, custom=False)), RT) == ()


def test_an_operator_is_named_once_however_often_it_occurs():
    operator = FlatOperator("CAST", 7, (), (), None)
    graph = Subgraph((), (operator, operator), (), ())
    assert len(refused_operators(FlatModel((graph, graph)), RT)) == 1


def test_a_custom_operator_is_read_as_one():
    [operator] = read_model(of_code(32, 1, custom="FlexErf", used=True)).main.operators
    assert (operator.name, operator.custom) == ("FlexErf", True)
