import dataclasses
import re
import typing
from pathlib import Path

import click
import pytest

from pipeline.cli import cli
from pipeline.config import load_experiment
from pipeline.config.sections import ExperimentSection
from pipeline.results.fleet_record import FleetRecord
from pipeline.results.record import RunRecord
from pipeline.yaml_file import Section, load_yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]


def commands(group: click.Group, words: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        path = (*words, name)
        found += commands(command, path) if isinstance(command, click.Group) else [(path, command)]
    return found


@pytest.mark.parametrize(
    ("path", "command"), commands(cli), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_help_and_stands_in_the_docs_with_its_options(path, command):
    page = (ROOT / "docs" / "commands.md").read_text()
    row = next((line for line in page.splitlines() if line.startswith(f"| `edgepress {' '.join(path)}")), None)
    assert command.help
    assert row is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "help":
            assert parameter.help, parameter.name
            assert any(option in row for option in parameter.opts), parameter.opts


def keys(section: type[Section], prefix: str = "") -> list[str]:
    names = []
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        inner = field.annotation
        is_section = isinstance(inner, type) and issubclass(inner, Section) and prefix + name != "budget"
        names += keys(inner, f"{key}.") if is_section else [key]
    return names


@pytest.mark.parametrize("key", keys(ExperimentSection))
def test_every_key_of_an_experiment_stands_in_the_docs(key):
    assert f"`{key}`" in (ROOT / "docs" / "experiments.md").read_text()


def parts(record: type, path: str = "the run") -> dict[type, str]:
    """Return every dataclass in a record with the place where it first stands."""
    found = {record: path}
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        place = f"{path}.{field.name}".removeprefix("the run.")
        found = {**within(hints[field.name], place), **found}
    return found


def within(kind: object, place: str) -> dict[type, str]:
    if dataclasses.is_dataclass(kind):
        return parts(kind, place)
    inner = f"{place}[]" if typing.get_origin(kind) is tuple else place
    return {cls: where for argument in typing.get_args(kind) for cls, where in within(argument, inner).items()}


RECORD = [("What a record has", part, place) for part, place in parts(RunRecord).items()]
FLEET = [("What a run on several devices has", part, place) for part, place in parts(FleetRecord).items()]


@pytest.mark.parametrize(
    ("section", "part", "place"), [*RECORD, *FLEET], ids=lambda value: getattr(value, "__name__", "")
)
def test_every_field_of_a_record_stands_in_the_docs_with_its_part(section, part, place):
    page = (ROOT / "docs" / "measurement.md").read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ", 1) for line in page.splitlines() if line.startswith("| ")]
    [fields] = [
        text
        for places, text in rows
        if place in places.replace("`", "").strip("| ").replace(" and other ", ", ").split(", ")
    ]
    assert [field.name for field in dataclasses.fields(part) if f"`{field.name}`" not in fields] == []


TESTS = {
    name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
}
CLAIMS = re.findall(r"^\| (?!claim|---)(.+) \| (.+) \|$", (ROOT / "docs" / "security.md").read_text(), re.M)


@pytest.mark.parametrize(("claim", "tests"), CLAIMS, ids=[claim[:60] for claim, _ in CLAIMS])
def test_every_claim_of_the_security_page_has_tests_that_exist(claim, tests):
    named = [name.strip().strip("`") for name in tests.split(",")]
    assert named
    assert [name for name in named if name not in TESTS] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "experiments").glob("*.yaml")), ids=lambda path: path.name)
def test_every_experiment_that_is_shipped_loads(path):
    assert load_experiment(path).variants


def test_the_device_file_in_the_docs_loads(tmp_path):
    from pipeline.devices.inventory import DeviceSection

    text = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "devices.md").read_text(), re.DOTALL)
    (tmp_path / "pi4-a.yaml").write_text(text.group(1))
    assert load_yaml(tmp_path / "pi4-a.yaml", DeviceSection).host == "pi4-a.lan"
