"""Every technique on every type of layer, for real; the table in docs/compression.md is what was found.

``make test-layer-types`` runs it, and ``make layer-types`` writes the table anew. It takes some minutes, so that
``make test`` leaves it out.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import layer_types
import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "compression.md"
BEGIN, END = "<!-- layer types: begin -->\n", "<!-- layer types: end -->\n"
WRITE = os.environ.get("EDGEPRESS_WRITE_LAYER_TYPES") == "1"

pytestmark = [pytest.mark.tensorflow, pytest.mark.layer_types, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def trials(request, tmp_path_factory):
    """A trial of each technique that is asked for, as many at once as there are cores."""
    folder = tmp_path_factory.mktemp("layer_types")
    asked = dict.fromkeys(
        item.callspec.params["tried"] for item in request.session.items if item.module is sys.modules[__name__]
    )
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        yield {case: executor.submit(trial, case, folder / f"{case}.json") for case in asked}


def trial(case: str, out: Path) -> dict[str, tuple[str, str]]:
    script = str(ROOT / "tests" / "layer_types.py")
    # Beside the script lies a folder "pipeline" of tests, which must not be taken for the package.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script, case, str(out)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: tuple(outcome) for name, outcome in json.loads(out.read_text()).items()}


@pytest.fixture(scope="module", params=layer_types.CASES)
def tried(request, trials) -> tuple[str, dict[str, tuple[str, str]]]:
    """What became of every type of layer under one technique."""
    return request.param, trials[request.param].result()


@pytest.mark.parametrize("layer_type", layer_types.LAYER_TYPES)
def test_a_layer_is_treated_or_named_or_refused_and_the_docs_say_which(tried, layer_type):
    case, found = tried
    outcome, detail = found[layer_type]
    assert outcome in layer_types.TOLD, detail
    assert detail or outcome in (layer_types.WORKS, layer_types.NOTHING)
    if WRITE:
        write_cell(layer_type, case, outcome)
    assert table()[layer_type][case] == outcome


def table() -> dict[str, dict[str, str]]:
    """Return the table in the docs, as {layer type: {technique: outcome}}."""
    rows = PAGE.read_text().split(BEGIN)[1].split(END)[0].strip().splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    types = cells[0][1:]
    return {name: {row[0].strip("`"): row[1:][place] for row in cells[2:]} for place, name in enumerate(types)}


def write_cell(layer_type: str, case: str, outcome: str) -> None:
    """Put one outcome into the table in the docs."""
    content = table()
    content[layer_type][case] = outcome
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(head + BEGIN + rendered(content) + END + rest.split(END)[1])


def rendered(content: dict[str, dict[str, str]]) -> str:
    """Return the table as Markdown: a row for each technique, a column for each type of layer."""
    names = list(layer_types.LAYER_TYPES)
    lines = [["", *names], ["---"] * (len(names) + 1)]
    for case in layer_types.CASES:
        lines.append([f"`{case}`", *(content.get(name, {}).get(case, "") for name in names)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
