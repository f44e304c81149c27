"""The story: config → trained model → compressed artifacts → deployment → measurement → record → report."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

from device_agent.protocol import RuntimeInfo
from pipeline.building.variants import build_variants
from pipeline.cache import Cache
from pipeline.config import Experiment
from pipeline.device_run import Built, DeviceRun, asked_of, check_runtime, placed, run_on, utc_now
from pipeline.devices.groups import find_devices
from pipeline.errors import DeviceError, EdgepressError
from pipeline.fleet import Board, Fleet
from pipeline.fleet_run import EarlierRun, find_earlier, fleet_run
from pipeline.measuring import check_job
from pipeline.preflight import check_variants
from pipeline.reporting.progress import Progress
from pipeline.results.fleet_store import FleetRun
from pipeline.results.record import RunRecord, VariantRecord
from pipeline.run_folder import new_run_id, write_fleet, write_run
from pipeline.samples import Samples

Build = Callable[[Experiment, Cache, Progress], tuple[list[VariantRecord], Samples]]


@dataclass(frozen=True)
class Options:
    """How a run is done, as opposed to what is asked of it.

    ``devices`` take the place of the experiment's; ``resume`` names the run on several devices whose rest is done.
    """

    output: Path
    cache: Cache
    reuse: bool = False
    wait: bool = False
    devices: tuple[str, ...] = ()
    resume: str = ""


@dataclass(frozen=True)
class Run:
    """A finished run: what is told of it, on one device or on several, and the folder that has all of it."""

    found: RunRecord | FleetRun
    folder: Path

    @property
    def measured(self) -> bool:
        """Whether each device has at least one VALID variant."""
        if isinstance(self.found, RunRecord):
            return any(variant.valid for variant in self.found.variants)
        return all(outcome.done for outcome in self.found.record.devices)

    @property
    def budget_met(self) -> bool:
        """Whether on each device some variant may ship."""
        if isinstance(self.found, RunRecord):
            return self.found.verdict.chosen is not None
        return all(outcome.chosen is not None for outcome in self.found.record.devices)

    @property
    def interrupted(self) -> bool:
        """Whether it was ended by Ctrl-C, with something to tell of all the same."""
        return isinstance(self.found, FleetRun) and self.found.record.interrupted

    @property
    def rest(self) -> bool:
        """Whether there is a rest that ``--resume`` would do."""
        return isinstance(self.found, FleetRun) and not self.measured


def run_experiment(experiment: Experiment, options: Options, progress: Progress, build: Build = build_variants) -> Run:
    """Build every variant once, measure all of them in one job on each device, and write the reports.

    A variant that cannot be built or measured is in the record with the reason, and so is one of several devices; the
    others go on.

    Args:
        experiment: what is asked.
        options: how it is done.
        progress: is told how it goes.
        build: makes the variants, and lays out the samples.

    Raises:
        EdgepressError: if nothing can be said of any variant. What was finished stays in the cache.
    """
    started_utc, run_id = utc_now(), new_run_id(experiment.name)
    check_job(experiment)
    Cache(options.output).subfolder("")  # that runs cannot be written there is better known now than after them
    earlier = find_earlier(options.output, options.resume)
    devices = find_devices(options.devices or earlier.names or experiment.devices)
    several = len(devices) > 1 or bool(options.resume)
    with Fleet(devices, several, progress) as fleet:
        runtimes = _runtimes(fleet, experiment, earlier.done)
        variants, samples = build(experiment, options.cache, progress)
        built = Built(experiment, placed(experiment, variants), samples, started_utc)
        asked = {device.name: asked_of(built, device) for device in devices}
        taken = _taken_over(fleet, earlier, asked)
        runtimes |= _runtimes(fleet, experiment, {*runtimes, *taken})
        given = _checked(built, variants, runtimes.values(), options.cache, progress)
        outcomes = _measured(fleet, runtimes, given, run_id, options)
    if not several:
        return _run_on_one(fleet, outcomes[devices[0].name], options.output)
    if fleet.interrupted and not any(isinstance(outcome, DeviceRun) for outcome in outcomes.values()):
        raise KeyboardInterrupt  # there is nothing that an earlier run, or the next one, has not
    found = fleet_run(run_id, built, outcomes, taken, asked, earlier, fleet.interrupted)
    jobs = {name: run.job for name, run in outcomes.items() if isinstance(run, DeviceRun) and run.job}
    return Run(found, write_fleet(found, built.variants, jobs, earlier.folder, options.output))


def _runtimes(
    fleet: Fleet, experiment: Experiment, skipped: AbstractSet[str]
) -> dict[str, RuntimeInfo | EdgepressError]:
    """Connect to all but those ``skipped``, and return the runtime of each, or why it cannot be used.

    Raises:
        EdgepressError: if none is left that could be used, or was skipped.
    """
    boards = [board for board in fleet.boards if board.name not in skipped]
    found = fleet.each(lambda board: check_runtime(board.client, experiment, board.device), boards)
    if fleet.interrupted:
        raise KeyboardInterrupt
    errors = [outcome for outcome in found.values() if isinstance(outcome, EdgepressError)]
    if len(errors) == len(fleet.boards):
        raise errors[0] if len(errors) == 1 else DeviceError("\n".join(str(error) for error in errors))
    return found


def _taken_over(fleet: Fleet, earlier: EarlierRun, asked: Mapping[str, str]) -> dict[str, RunRecord]:
    taken = earlier.same(asked)
    for board in fleet.boards:
        if board.name in taken:
            board.progress.stage("done").finish(f"taken over from {earlier.run_id}")
        elif board.name in earlier.done:
            board.progress.stage("again").finish(f"something else was asked of it in {earlier.run_id}")
    return taken


def _checked(
    built: Built,
    variants: Sequence[VariantRecord],
    runtimes: Iterable[RuntimeInfo | EdgepressError],
    cache: Cache,
    progress: Progress,
) -> dict[RuntimeInfo, Built]:
    """Return what devices are given, by their runtime: pre-flight may stop a variant for one version only."""
    experiment, samples = built.experiment, built.samples
    different = dict.fromkeys(runtime for runtime in runtimes if isinstance(runtime, RuntimeInfo))
    return {
        runtime: replace(
            built,
            variants=placed(experiment, check_variants(experiment, runtime, variants, samples, cache, progress)),
        )
        for runtime in different
    }


def _measured(
    fleet: Fleet,
    runtimes: Mapping[str, RuntimeInfo | EdgepressError],
    given: Mapping[RuntimeInfo, Built],
    run_id: str,
    options: Options,
) -> dict[str, DeviceRun | EdgepressError]:
    """Measure on every device that can be used; return what came of it, for the others why they could not."""
    deriving = threading.Lock()
    usable = {name: given[runtime] for name, runtime in runtimes.items() if isinstance(runtime, RuntimeInfo)}

    def measure(board: Board) -> DeviceRun:
        own_id = f"{run_id}-{board.name}" if fleet.several else run_id
        run = run_on(board, usable[board.name], own_id, options.cache, options.reuse, options.wait, deriving)
        if fleet.several:
            board.progress.stage("done").finish(run.record.verdict.reason)
        return run

    boards = [board for board in fleet.boards if board.name in usable]
    timeout_s = max((built.experiment.limits.device_timeout_s for built in given.values()), default=0.0)
    measured = fleet.each(measure, boards, timeout_s)
    return {**{name: error for name, error in runtimes.items() if isinstance(error, EdgepressError)}, **measured}


def _run_on_one(fleet: Fleet, outcome: DeviceRun | EdgepressError, output: Path) -> Run:
    if fleet.interrupted:
        raise KeyboardInterrupt
    if isinstance(outcome, EdgepressError):
        raise outcome
    return Run(*write_run(outcome, output))
