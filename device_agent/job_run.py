"""One run of a job: its blocks in order, each in a child process, and the result that they add up to.

Blocks that have a result on disk are not run again, so that a run can be taken up where a killed daemon left it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from device_agent.blocks import Block, Outcome, Request, outcome_from_bytes, outcome_to_bytes
from device_agent.children import Children, Exit
from device_agent.files import disk_full, write_file
from device_agent.probe import Probes
from device_agent.protocol import (
    BoardState,
    Failure,
    JobFile,
    JobSpec,
    Measurement,
    Power,
    Profile,
    Scored,
    Sustained,
    TimingBlock,
    from_json,
    to_json,
)
from device_agent.runtimes import UnknownRuntime
from device_agent.schedule import later_blocks, needs_another_round, timing_round
from device_agent.sensors import hottest_c, read_rails, read_state
from device_agent.sha256 import sha256_of_file
from device_agent.worker import EXIT_DISK_FULL

_FIRST_PAUSE_S = 2.0
# A board is as cool as before when it is no more than this above.
_AS_COOL_C = 2.0

# Last words of a child that was refused memory: of C++, of Python, of numpy's OpenBLAS while it is loaded.
_NO_MEMORY = ("bad_alloc", "MemoryError", "Memory allocation", "Cannot allocate memory")

_EXTRA: dict[str, Callable[..., Outcome]] = {"profile": Profile, "power": Power, "sustained": Sustained}

# stage, model, done, total
Report = Callable[[str, str, int, int], None]


class JobRun:
    """Runs the blocks of one job in its folder; ``root`` is below which the board's state is read."""

    def __init__(self, home: Path, job_id: str, spec: JobSpec, probes: Probes, root: Path = Path("/")) -> None:
        self._home = home
        self._job_id = job_id
        self._spec = spec
        self._probes = probes
        self._root = root
        self._children = Children()
        self._folder = home / "jobs" / job_id
        self._outcomes: dict[Block, Outcome] = {}
        self._done = 0
        self._planned = 0
        self._began_s = time.monotonic()
        self._kept_s = 0.0

    def run(self, report: Report) -> None:
        """Run what has no result yet and call ``report`` after each block.

        Raises:
            Stopped: if ``stop`` was called.
            OSError: if the job's folder cannot be written.
        """
        if not self._before_path.is_file():
            write_file(self._before_path, json.dumps(to_json(read_state(self._root))).encode())
        self._began_s = time.monotonic()
        later = later_blocks(self._spec, with_power=bool(read_rails(self._root)))
        rounds = 0
        while needs_another_round(self._spec, rounds, self._timed(), self._spent_s()):
            rounds += 1
            self._planned = max(rounds, self._spec.measure.processes) * len(self._spec.models) + len(later)
            for block in timing_round(self._spec, rounds - 1):
                self._take(block, report)
        for block in later:
            self._take(block, report)

    def _take(self, block: Block, report: Report) -> None:
        """Run a block unless it is there already, or its model has failed; again when it was disturbed."""
        self._done += 1
        if self.failure_of(block.model):
            return
        model, retries = self._spec.models[block.model].name, self._retries(block.model)
        while True:
            kept = self._found_earlier(block)
            if block.stage == "sustained" and not kept:
                self._cool_to_start()
            outcome = kept or self._run_block(block)
            if isinstance(kept, TimingBlock):
                self._kept_s += kept.elapsed_s
            if not _is_disturbed(outcome) or block.attempt >= retries:
                break
            if not kept:
                report("cooldown", model, self._done - 1, self._planned)
                self._cool_down(block.attempt)
            block = replace(block, attempt=block.attempt + 1)
        self._outcomes[block] = outcome
        # Of a kept block too: the daemon may have been killed between its result and its event.
        report(block.stage, model, self._done, self._planned)

    def _retries(self, model: int) -> int:
        """Return how often a disturbed block is taken again: no more once one of its model was given up, since the
        model's numbers cannot be used any more."""
        given_up = any(block.conditions.disturbances for block in self._blocks(model))
        return 0 if given_up else self._spec.conditions.retries

    def _cool_down(self, attempt: int) -> None:
        """Pause longer with each attempt, and for as long as the board is too hot, but no longer than allowed."""
        conditions = self._spec.conditions
        deadline = time.monotonic() + conditions.cooldown_s
        self._children.pause(min(conditions.cooldown_s, _FIRST_PAUSE_S * 2**attempt))
        if conditions.max_temperature_c is None:
            return
        cool_c = conditions.max_temperature_c - conditions.cooldown_c
        while (hottest_c(self._root) or 0.0) > cool_c and time.monotonic() < deadline:
            self._children.pause(1.0)

    def _cool_to_start(self) -> None:
        """Pause until the board is as cool as it was before the job, so that every sustained run begins alike."""
        before = self.before()
        if before is None or not before.temperatures_c:
            return
        start_c = max(zone.value for zone in before.temperatures_c)
        deadline = time.monotonic() + self._spec.conditions.cooldown_s
        while (hottest_c(self._root) or 0.0) > start_c + _AS_COOL_C and time.monotonic() < deadline:
            self._children.pause(1.0)

    def _timed(self) -> list[list[TimingBlock]]:
        """Return the blocks of each model that has neither failed nor been given up."""
        models = range(len(self._spec.models))
        alive = (self._blocks(model) for model in models if not self.failure_of(model))
        return [blocks for blocks in alive if not any(block.conditions.disturbances for block in blocks)]

    def _spent_s(self) -> float:
        """Return how long this job has been timing; what a daemon before this one did counts as its blocks took."""
        return time.monotonic() - self._began_s + self._kept_s

    def _blocks(self, model: int) -> list[TimingBlock]:
        outcomes = (outcome for block, outcome in self._outcomes.items() if block.model == model)
        return [outcome for outcome in outcomes if isinstance(outcome, TimingBlock)]

    def before(self) -> BoardState | None:
        """Return the board as it was when the job first began, None when it did not."""
        path = self._before_path
        return from_json(BoardState, json.loads(path.read_bytes())) if path.is_file() else None

    def stop(self) -> None:
        """Kill the block that runs; ``run`` then raises ``Stopped``."""
        self._children.stop()

    def failure_of(self, model: int) -> Failure | None:
        """Return why the model at place ``model`` has no measurement, if that is known."""
        failures = (outcome for block, outcome in self._outcomes.items() if block.model == model)
        return next((outcome for outcome in failures if isinstance(outcome, Failure)), None)

    def failures(self) -> tuple[Failure, ...]:
        """Return the failures, one for each model that has failed."""
        found = (self.failure_of(model) for model in range(len(self._spec.models)))
        return tuple(failure for failure in found if failure)

    def measurements(self) -> tuple[Measurement, ...]:
        """Return what was measured of the models that are finished."""
        found = (self._measurement(model) for model in range(len(self._spec.models)))
        return tuple(measurement for measurement in found if measurement)

    def files(self) -> tuple[JobFile, ...]:
        """Return the files for the host: those that the measurements name."""
        paths = [self._folder / "files" / name for found in self.measurements() for name in _file_names(found)]
        return tuple(JobFile(path.name, path.stat().st_size, sha256_of_file(path)) for path in paths)

    def _measurement(self, model: int) -> Measurement | None:
        found = {block.stage: outcome for block, outcome in self._outcomes.items() if block.model == model}
        scored = found.get("scoring")
        if not isinstance(scored, Scored) or self.failure_of(model):
            return None
        spec, blocks = self._spec.models[model], self._blocks(model)
        profile, power, sustained = found.get("profile"), found.get("power"), found.get("sustained")
        return Measurement(
            model=spec.name,
            runtime=spec.runtime,
            runtime_version=self._probes.info(spec.runtime).version or "",
            threads=spec.threads,
            blocks=tuple(blocks),
            score=scored.score,
            delegate=spec.delegate,
            batch=spec.batch,
            retaken=sum(block.attempt for block in blocks),
            parity=scored.parity,
            delegation=scored.delegation,
            profile=profile if isinstance(profile, Profile) else None,
            power=power if isinstance(power, Power) else None,
            sustained=sustained if isinstance(sustained, Sustained) else None,
        )

    def _found_earlier(self, block: Block) -> Outcome | None:
        outcome = self._kept(block)
        # There may be room by now.
        return None if isinstance(outcome, Failure) and outcome.kind == "disk" else outcome

    def _kept(self, block: Block) -> Outcome | None:
        path = self._result_path(block)
        return outcome_from_bytes(path.read_bytes()) if path.is_file() else None

    def _run_block(self, block: Block) -> Outcome:
        unusable = self._unusable(block)
        outcome: Outcome = unusable or self._run_child(block)
        if isinstance(outcome, Failure):
            if block.stage in _EXTRA:
                # Times and scores are there: only what this pass would have added is missing.
                outcome = _EXTRA[block.stage](problem=f"{outcome.kind}: {outcome.message}")
            write_file(self._result_path(block), outcome_to_bytes(outcome))
        return outcome

    def _unusable(self, block: Block) -> Failure | None:
        model = self._spec.models[block.model]
        try:
            problem = self._probes.info(model.runtime).problem
        except UnknownRuntime as error:
            problem = str(error)
        return Failure(model.name, "runtime", f"{model.runtime} cannot be used: {problem}") if problem else None

    def _run_child(self, block: Block) -> Outcome:
        request = Request(
            str(self._home), self._job_id, self._spec, block, os.getpid(), time.monotonic(), str(self._root)
        )
        request_path = self._folder / "blocks" / f"{block.name}.request.json"
        write_file(request_path, json.dumps(to_json(request)).encode())
        python = self._probes.python(self._spec.models[block.model].runtime)
        # With faulthandler the last lines of a crash show where in Python it happened.
        command = [python, "-X", "faulthandler", "-m", "device_agent.worker"]
        ended = self._children.run([*command, str(request_path), str(self._result_path(block))], request.wall_s)
        return self._kept(block) or failure_from(ended, request)

    @property
    def _before_path(self) -> Path:
        return self._folder / "blocks" / "before.json"

    def _result_path(self, block: Block) -> Path:
        return self._folder / "blocks" / f"{block.name}.json"


def _file_names(measurement: Measurement) -> list[str]:
    passes = (measurement.score, measurement.delegation, measurement.profile, *measurement.blocks)
    return [found.file_name for found in passes if found and found.file_name]


def _is_disturbed(outcome: Outcome) -> bool:
    return isinstance(outcome, TimingBlock) and bool(outcome.conditions.disturbances)


def failure_from(ended: Exit, request: Request) -> Failure:
    """Say what a child that left no result died of."""
    name, limits = request.spec.models[request.block.model].name, request.spec.limits
    if ended.timed_out:
        return Failure(name, "timeout", f"{request.block.stage} took longer than {request.wall_s:g} s", ended.tail)
    if ended.returncode == EXIT_DISK_FULL:
        return Failure(name, "disk", str(disk_full(Path(request.home))), ended.tail)
    died_of = _signal_name(ended.returncode)
    if limits.cpu_s and died_of == "SIGXCPU":
        return Failure(
            name, "timeout", f"{request.block.stage} took more than {limits.cpu_s} s of CPU time", ended.tail
        )
    if limits.memory_mib and (died_of == "SIGKILL" or any(words in ended.tail for words in _NO_MEMORY)):
        return Failure(name, "memory", f"more memory was needed than the limit of {limits.memory_mib} MiB", ended.tail)
    if died_of == "SIGKILL":
        return Failure(name, "crash", "ended with SIGKILL, as the kernel sends when memory runs out", ended.tail)
    how = f"with {died_of}" if died_of else f"with exit status {ended.returncode} and no result"
    return Failure(name, "crash", f"{request.block.stage} ended {how}", ended.tail)


def _signal_name(returncode: int) -> str | None:
    if returncode >= 0:
        return None
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
