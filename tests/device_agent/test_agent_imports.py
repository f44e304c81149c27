"""The agent runs where there is Python 3.9, numpy and a runtime, and nothing else."""

import ast
import sys
from pathlib import Path

import pytest

import device_agent

AGENT = Path(device_agent.__file__).parent
OTHERS = {"device_agent", "numpy", "ai_edge_litert", "tflite_runtime"}
# Modules of the standard library that came after Python 3.9.
TOO_NEW = {"tomllib", "_colorize", "annotationlib", "compression", "concurrent.interpreters", "string.templatelib"}


def imported(tree: ast.AST) -> set[str]:
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", sorted(AGENT.rglob("*.py")), ids=lambda path: str(path.relative_to(AGENT)))
def test_a_module_imports_only_the_standard_library_of_python_3_9_numpy_and_the_runtimes(path):
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    names = imported(tree)
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | OTHERS
    assert not names & TOO_NEW
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))
