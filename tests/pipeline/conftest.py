"""A command line with a home of its own, and tiny models to give it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from agents import CALM_YAML
from processes import processes_with
from ruamel.yaml import YAML

from pipeline.building.artifacts import Builder, SourceModel
from pipeline.building.running_steps import RunningSteps
from pipeline.building.variants import prepare
from pipeline.cache import Cache
from pipeline.config import load_experiment
from pipeline.errors import UsageError
from pipeline.reporting.progress import NoProgress
from pipeline.results.record import Artifact

QUICK = "{processes: 2, warmup_s: 0.05, timing_s: 0.05}"


class Bench:
    """A home of its own, the tiny models, and the command line."""

    def __init__(self, models: Path, home: Path, folder: Path) -> None:
        self.models, self.home, self.folder = models, home, folder

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "EDGEPRESS"))}
        return {**kept, "HOME": str(self.home)}

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("edgepress")), *map(str, arguments)]

    def edgepress(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=240,
        )

    def experiment(
        self,
        model: str = "keras3.keras",
        data: str = "data.npz",
        variants: str = "  float32: []\n",
        measure: str = QUICK,
        **more: str,
    ) -> Path:
        path = self.folder / "e.yaml"
        top = "".join(f"{key}: {value}\n" for key, value in {"metric": "top1", **more}.items())
        source = f"name: tiny\nmodel: {self.models / model}\ndata: {{file: {self.models / data}}}\n"
        path.write_text(f"{source}{top}measure: {measure}\nvariants:\n{variants}")
        return path

    def initialized(self, model: str, data: str, *variants: str) -> Path:
        """What ``edgepress init`` writes, to be measured quickly, with ``variants`` only when some are named."""
        inputs = ("--model", self.models / model, "--data", self.models / data, "--metric", "top1")
        made = self.edgepress("init", *inputs, "-o", "my.yaml")
        assert made.returncode == 0, made.stderr
        path, yaml = self.folder / "my.yaml", YAML()
        written = yaml.load(path.read_text())
        written["measure"] = {"processes": 2, "warmup_s": 0, "timing_s": 0}
        for name in set(written["variants"]).difference(variants or written["variants"]):
            del written["variants"][name]
        with path.open("w") as file:
            yaml.dump(written, file)
        return path

    def prepared(self, steps: RunningSteps, **asked: str) -> tuple[Builder, SourceModel]:
        """What a run does before it builds, in this process and without a device."""
        cache = Cache(self.home / ".cache" / "edgepress")
        return prepare(load_experiment(self.experiment(**asked)), cache, steps, NoProgress())

    def refusal(self, steps: RunningSteps, **asked: str) -> str:
        """What a run says of input that it cannot use, in one line."""
        with pytest.raises(UsageError) as caught:
            self.prepared(steps, **asked)
        return " ".join(str(caught.value).split())

    def built(self, steps: RunningSteps, model: str, **asked: str) -> Artifact:
        """The artifact of the experiment's one variant."""
        builder, source = self.prepared(steps, model=model, **asked)
        [variant] = builder.experiment.variants
        return builder.build(source, variant, lambda fraction, text: None)[0]

    def record(self) -> dict:
        newest = max((self.folder / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return json.loads((newest / "report.json").read_text())


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> Path:
    """The folder of tiny models, made by whichever worker comes first."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    folder, made = shared / "tiny_models", shared / "tiny_models.made"
    with (shared / "tiny_models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            folder.mkdir()
            script = Path(__file__).parents[1] / "tiny_models.py"
            subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory):
    """One cache for all, so that what one test built the next ones need not."""
    home = tmp_path_factory.mktemp("home")
    set_up(home)
    yield home
    stop_agents(home)


@pytest.fixture(scope="session")
def steps():
    """One server of TensorFlow steps for all: importing it takes longer than most of what they do."""
    with RunningSteps() as running:
        yield running


@pytest.fixture
def bench(tiny_models, shared_home, tmp_path) -> Bench:
    return Bench(tiny_models, shared_home, tmp_path)


@pytest.fixture
def fresh_bench(tiny_models, tmp_path):
    (tmp_path / "work").mkdir()
    set_up(tmp_path / "home")
    yield Bench(tiny_models, tmp_path / "home", tmp_path / "work")
    stop_agents(tmp_path / "home")


def set_up(home: Path) -> None:
    devices = home / ".config" / "edgepress" / "devices"
    devices.mkdir(parents=True)
    (devices / "local.yaml").write_text(f"transport: local\n{CALM_YAML}")


def stop_agents(home: Path) -> None:
    for process in processes_with(str(home)):
        os.kill(process, signal.SIGKILL)
