import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each layer may import itself and those below it.
LAYERS = (
    ("pipeline.cli", "pipeline.cli_board", "pipeline.cli_device"),
    ("pipeline.experiment", "pipeline.training.reference_tasks", "pipeline.starter", "pipeline.jobs"),
    ("pipeline.fleet_run",),
    ("pipeline.run_folder",),
    ("pipeline.device_run",),
    ("pipeline.fleet", "pipeline.measuring", "pipeline.preflight"),
    ("pipeline.building",),
    (
        "pipeline.agent_client",
        "pipeline.cache",
        "pipeline.compression",
        "pipeline.config",
        "pipeline.devices",
        "pipeline.emulated_board",
        "pipeline.errors",
        "pipeline.export",
        "pipeline.flatbuffer",
        "pipeline.inspection",
        "pipeline.model_formats",
        "pipeline.reporting",
        "pipeline.results",
        "pipeline.samples",
        "pipeline.training",
        "pipeline.yaml_file",
    ),
    ("device_agent", "models"),
)


def modules() -> list[Path]:
    return [path for package in ("pipeline", "device_agent", "models") for path in (ROOT / package).rglob("*.py")]


def dotted(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def layer_of(name: str) -> int | None:
    for index, layer in enumerate(LAYERS):
        if any(name == module or name.startswith(module + ".") for module in layer):
            return index
    return None


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_every_module_has_its_place_in_a_layer():
    homeless = [dotted(path) for path in modules() if layer_of(dotted(path)) is None]
    assert homeless == ["pipeline"]


def test_no_import_points_upwards():
    wrong = [
        f"{dotted(path)} imports {name}"
        for path in modules()
        for name in imported(path)
        if (there := layer_of(name)) is not None and there < (layer_of(dotted(path)) or 0)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("package", "allowed"),
    [("device_agent", {"device_agent"}), ("models", {"models"})],
)
def test_a_package_imports_nothing_of_ours_outside_itself(package, allowed):
    ours = {"pipeline", "device_agent", "models"} - allowed
    wrong = [
        f"{path.name} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in ours
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "code", ["from pipeline.cli import cli; cli(['--help'], standalone_mode=False)", "import device_agent"]
)
def test_help_and_the_agent_load_nothing_heavy(code):
    heavy = ("tensorflow", "pandas", "numpy", "pydantic", "paramiko", "rich", "keras")
    script = f"{code}\nimport sys\nprint([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
