"""What the devices of one run came to, all together; and what is taken over from an earlier run that lacked some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.device_run import Built, DeviceRun, utc_now, versions
from pipeline.errors import (
    AgentError,
    AuthenticationRefused,
    DeviceFull,
    DeviceInterrupted,
    DeviceLeased,
    DeviceUnreachable,
    EdgepressError,
    HostKeyRefused,
    StorageError,
)
from pipeline.measuring import baseline_name
from pipeline.results.fleet_record import DeviceFailure, DeviceOutcome, FleetRecord
from pipeline.results.fleet_store import FleetRun, find_fleet, read_fleet
from pipeline.results.fleet_verdict import judge_fleet
from pipeline.results.record import RunRecord
from pipeline.run_folder import below_device, device_folder

# The first that fits; DeviceLeased is an AgentError too.
_KINDS: tuple[tuple[type[EdgepressError], str], ...] = (
    (DeviceUnreachable, "unreachable"),
    (HostKeyRefused, "refused"),
    (AuthenticationRefused, "refused"),
    (DeviceFull, "full"),
    (DeviceInterrupted, "interrupted"),
    (DeviceLeased, "leased"),
    (AgentError, "agent"),
    (StorageError, "host"),
)


@dataclass(frozen=True)
class EarlierRun:
    """A run on several devices whose rest is to be done; without a ``folder`` there is none, and it has nothing."""

    folder: Path | None = None
    fleet: FleetRun | None = None

    @property
    def run_id(self) -> str:
        """Its id; empty when there is none."""
        return self.fleet.record.run_id if self.fleet else ""

    @property
    def names(self) -> tuple[str, ...]:
        """The devices that it was asked to measure on."""
        return tuple(self._outcomes)

    @property
    def done(self) -> set[str]:
        """The devices that it has measured."""
        return {name for name, outcome in self._outcomes.items() if outcome.done}

    def same(self, asked: Mapping[str, str]) -> dict[str, RunRecord]:
        """Return the records of the devices that it has measured and of which the very same is ``asked`` now."""
        assert self.fleet or not self.done
        runs = self.fleet.runs if self.fleet else {}
        return {name: runs[name] for name in asked if name in self.done and self._outcomes[name].asked == asked[name]}

    @property
    def _outcomes(self) -> dict[str, DeviceOutcome]:
        return {outcome.device: outcome for outcome in self.fleet.record.devices} if self.fleet else {}


def find_earlier(output: Path, run: str) -> EarlierRun:
    """Return the run on several devices that ``run`` names, by its id in ``output`` or its folder; "" names none.

    Raises:
        UsageError: if there is no such run, or it is damaged.
    """
    if not run:
        return EarlierRun()
    folder = find_fleet(output, run)
    return EarlierRun(folder, read_fleet(folder))


def fleet_run(
    run_id: str,
    built: Built,
    outcomes: Mapping[str, DeviceRun | EdgepressError],
    taken: Mapping[str, RunRecord],
    asked: Mapping[str, str],
    earlier: EarlierRun,
    interrupted: bool,
) -> FleetRun:
    """Return the run as it is stored.

    Args:
        run_id: its id.
        built: what every device was given.
        outcomes: what came of each device that was measured now.
        taken: the records of the others, from ``earlier``.
        asked: what was asked of each device, in the order of the devices.
        earlier: the run that this one resumes.
        interrupted: whether it was ended by Ctrl-C.
    """
    experiment = built.experiment
    runs = {**taken, **{n: below_device(o.record) for n, o in outcomes.items() if isinstance(o, DeviceRun)}}
    ordered = {name: runs[name] for name in asked if name in runs}
    failed = [name for name in asked if name not in runs]
    failures = {name: _failure(error) for name, error in outcomes.items() if isinstance(error, EdgepressError)}
    record = FleetRecord(
        run_id=run_id,
        experiment=experiment.name,
        experiment_file=str(experiment.file),
        started_utc=built.started_utc,
        finished_utc=utc_now(),
        metric=experiment.metric,
        baseline=baseline_name(experiment),
        devices=tuple(
            _outcome(name, asked[name], ordered.get(name), failures.get(name), name in taken) for name in asked
        ),
        verdict=judge_fleet(ordered, failed, experiment.measure.smallest_effect),
        host=versions(),
        resumed=earlier.run_id,
        interrupted=interrupted,
    )
    return FleetRun(record, ordered)


def _outcome(
    name: str, asked: str, run: RunRecord | None, failure: DeviceFailure | None, taken_over: bool
) -> DeviceOutcome:
    if run is None:
        return DeviceOutcome(name, failure, asked=asked)
    valid = sum(variant.valid for variant in run.variants)
    folder, chosen = device_folder(name), run.verdict.chosen
    return DeviceOutcome(name, None, folder, asked, taken_over, len(run.variants), valid, chosen)


def _failure(error: EdgepressError) -> DeviceFailure:
    kind = next((kind for type_, kind in _KINDS if isinstance(error, type_)), "agent")
    return DeviceFailure(kind, str(error))
