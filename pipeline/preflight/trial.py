"""Flatbuffers run in a device's runtime on this machine: each in a process of its own, by the agent's own score pass.

It is the very code that scores on the device, with neither daemon nor lease nor a home that is shared: a measurement
that goes on meanwhile is not asked and not waited for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

from device_agent.blocks import Block, Outcome, Request, outcome_from_bytes, outcome_to_bytes
from device_agent.children import Children, Stopped
from device_agent.job_run import failure_from
from device_agent.protocol import DataSpec, Failure, JobSpec, LimitSpec, MeasureSpec, ModelSpec, to_json
from pipeline.cache import Cache, key_of, write_text
from pipeline.preflight.culprit import culprit
from pipeline.preflight.environment import Environment
from pipeline.samples import file_sha256

_JOB = "0" * 16
# Of the pass that times: one invoke shows whether the model takes a batch.
_MEASURE = MeasureSpec(processes=1, warmup_s=0, timing_s=0, min_invokes=1, max_invokes=1)
# What may have been so for the hour's reasons, such as another program's memory.
_PASSING = ("timeout", "memory", "disk", "runtime", "internal")


@dataclass(frozen=True)
class Trial:
    """What is run where: samples as ``.npy`` files by content, and what the source model answers to them.

    ``expected`` is a folder with ``outputs-0.npy``, [samples, …]; ``batch`` is how many samples are timed at once.
    """

    environment: Environment
    delegate: str
    inputs: Path
    labels: Path
    samples: int
    scale: float
    offset: float
    metric: str
    limits: LimitSpec
    batch: int
    expected: Path

    def key(self, sha256: str) -> str:
        """Return the key of all that the outcome for one flatbuffer depends on."""
        where = (self.environment.runtime, self.environment.version, self.delegate)
        data = (self.inputs.stem, self.labels.stem, self.scale, self.offset, self.metric)
        expected = [file_sha256(file) for file in sorted(self.expected.iterdir())]
        return key_of("preflight", sha256, where, data, to_json(self.limits), self.batch, expected)

    def job(self, sha256s: Sequence[str]) -> JobSpec:
        """Return the job as the agent's pass reads it."""
        runtime = self.environment.runtime
        models = [ModelSpec(digest, digest, runtime, 1, self.delegate, batch=self.batch) for digest in sha256s]
        data = DataSpec(self.inputs.stem, self.labels.stem, self.samples, self.scale, self.offset)
        return JobSpec("preflight", tuple(models), data, self.metric, measure=_MEASURE, limits=self.limits)


def run_trials(trial: Trial, files: dict[str, Path], cache: Cache, on_done: Callable[[], None]) -> dict[str, Outcome]:
    """Return what came of each flatbuffer, by its SHA-256; ``on_done`` is called after each.

    What was run before with the same samples in the same version of the runtime is not run again.
    """
    folder = cache.subfolder("preflight")
    outcomes = {sha256: _kept(folder / trial.key(sha256)) for sha256 in files}
    known = {sha256: outcome for sha256, outcome in outcomes.items() if outcome}
    missing = [sha256 for sha256 in files if sha256 not in known]
    for _ in known:
        on_done()
    if missing:
        cache.remove_leftovers("preflight")
        with cache.writing(folder), _home(folder, trial, {sha256: files[sha256] for sha256 in missing}) as home:
            for sha256, outcome in zip(missing, _run_all(trial, home, missing, on_done), strict=True):
                known[sha256] = outcome
                _keep(folder / trial.key(sha256), outcome)
    return known


def _run_all(trial: Trial, home: Path, sha256s: Sequence[str], on_done: Callable[[], None]) -> list[Outcome]:
    """Run as many side by side as there are cores."""
    job, children = trial.job(sha256s), [Children() for _ in sha256s]

    def run(place: int) -> Outcome:
        outcome = _run(trial, home, job, place, children[place])
        on_done()
        return outcome

    executor = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        return list(executor.map(run, range(len(sha256s))))
    finally:
        # Also by Ctrl-C; a child that has ended is not stopped any more.
        executor.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.stop()


def _run(trial: Trial, home: Path, job: JobSpec, place: int, children: Children) -> Outcome:
    scored = _run_block(trial, home, job, Block("scoring", place), children)
    if _died(scored):
        return _with_culprit(trial, home, job.models[place], scored, children)
    if trial.batch == 1 or isinstance(scored, Failure):
        return scored
    # Scoring takes one sample at a time; only what is timed takes them together.
    timed = _run_block(trial, home, job, Block("timing", place), children)
    return timed if isinstance(timed, Failure) else scored


def _died(outcome: Outcome) -> TypeGuard[Failure]:
    """Whether the runtime itself died."""
    return isinstance(outcome, Failure) and outcome.kind == "crash" and not _was_killed(outcome)


def _was_killed(failure: Failure) -> bool:
    """Whether it was ended from elsewhere, as when memory runs out."""
    return "SIGKILL" in failure.message


def _with_culprit(trial: Trial, home: Path, model: ModelSpec, crash: Failure, children: Children) -> Failure:
    """Return the crash with the operator that it comes of, as far as that can be found."""

    def dies(content: bytes) -> bool:
        digest = hashlib.sha256(content).hexdigest()
        with tempfile.TemporaryDirectory(dir=home) as folder:
            file = Path(folder, digest)
            file.write_bytes(content)
            with _home(Path(folder), trial, {digest: file}) as beginning:
                return _died(_run_block(trial, beginning, trial.job([digest]), Block("scoring", 0), children))

    found = culprit((home / "blobs" / model.sha256).read_bytes(), dies)
    return replace(crash, message=f"{crash.message}; {found}") if found else crash


def _run_block(trial: Trial, home: Path, job: JobSpec, block: Block, children: Children) -> Outcome:
    request = Request(str(home), _JOB, job, block, os.getpid(), time.monotonic())
    asked, answered = (request.scratch / f"{block.name}.{end}" for end in ("request.json", "json"))
    asked.write_text(json.dumps(to_json(request)), encoding="ascii")
    command = [trial.environment.python, "-X", "faulthandler", "-m", "device_agent.worker", str(asked), str(answered)]
    try:
        ended = children.run(command, request.wall_s)
    except Stopped:
        return Failure(job.models[block.model].name, "internal", "stopped")
    except OSError as error:
        return Failure(job.models[block.model].name, "runtime", f"{command[0]}: {error.strerror}")
    return outcome_from_bytes(answered.read_bytes()) if answered.is_file() else failure_from(ended, request)


@contextmanager
def _home(folder: Path, trial: Trial, files: dict[str, Path]) -> Iterator[Path]:
    """Give a folder laid out as an agent's home is, with links to what is in the cache already."""
    # The name ends as those do that ``Cache.remove_leftovers`` looks for.
    home = Path(tempfile.mkdtemp(prefix=".part-", suffix=f"-{os.getpid()}", dir=folder))
    try:
        blobs, job = home / "blobs", home / "jobs" / _JOB
        for made in (blobs, job / "blocks", job / "files"):
            made.mkdir(parents=True)
        for name, file in {**files, trial.inputs.stem: trial.inputs, trial.labels.stem: trial.labels}.items():
            (blobs / name).symlink_to(file.absolute())
        for file in trial.expected.iterdir():
            (job / "blocks" / file.name).symlink_to(file.absolute())
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _kept(path: Path) -> Outcome | None:
    return outcome_from_bytes(path.read_bytes()) if path.is_file() else None


def _keep(path: Path, outcome: Outcome) -> None:
    if isinstance(outcome, Failure) and (outcome.kind in _PASSING or _was_killed(outcome)):
        return
    write_text(path, outcome_to_bytes(outcome).decode("ascii"))
