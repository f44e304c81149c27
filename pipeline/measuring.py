"""One job on one device: what is asked of the agent, and what came of it, kept so that it need not be done again."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from device_agent.protocol import (
    ConditionSpec,
    DataSpec,
    JobEvent,
    JobResult,
    JobSpec,
    Lease,
    LimitSpec,
    MeasureSpec,
    ModelSpec,
    Profile,
    ProtocolError,
    from_json,
    to_json,
)
from device_agent.schedule import check_size
from pipeline.agent_client import AgentClient, Blob
from pipeline.cache import Cache, key_of, write_text
from pipeline.config import Experiment
from pipeline.devices.agent_stream import printable
from pipeline.errors import AgentError, DeviceUnreachable, UsageError
from pipeline.reporting.progress import Progress, Stage
from pipeline.results.comparison import is_disturbed
from pipeline.results.record import Artifact, OperatorTime
from pipeline.samples import Samples


@dataclass(frozen=True)
class Placement:
    """A variant as it is run: its artifact with a number of threads, under a name of its own."""

    name: str
    artifact: Artifact
    threads: int


@dataclass(frozen=True)
class MeasuredJob:
    """A finished job: its result, the folder with its raw samples, and whether it was measured by an earlier run."""

    result: JobResult
    folder: Path
    reused: bool

    @property
    def samples(self) -> dict[str, npt.NDArray[Any]]:
        """The raw samples by file name: nanoseconds of each block, one score a sample."""
        return {file.name: np.load(self.folder / file.name) for file in self.result.files if file.name.endswith(".npy")}

    def operators(self, profile: Profile | None) -> tuple[OperatorTime, ...]:
        """Return the operators of ``profile`` with their times, in the order in which they ran."""
        if profile is None or not profile.file_name:
            return ()
        content = json.loads((self.folder / profile.file_name).read_text(encoding="utf-8"))
        return tuple(from_json(OperatorTime, operator) for operator in content)


def place(name: str, threads: int, experiment: Experiment) -> str:
    """Return the name of a variant that is run with ``threads`` threads: its own, unless several numbers are tried."""
    return name if len(experiment.threads) == 1 else f"{name}.t{threads}"


def baseline_name(experiment: Experiment) -> str:
    """Return what every other placement is compared with: the baseline with the first number of threads."""
    return place(experiment.baseline, experiment.threads[0], experiment)


def job_spec(
    experiment: Experiment, placements: Sequence[Placement], samples: Samples, conditions: ConditionSpec
) -> JobSpec:
    """Return the job that measures ``placements`` as the experiment asks, under the device's conditions."""
    names = [placement.name for placement in placements]
    baseline = baseline_name(experiment)
    return JobSpec(
        name=experiment.name,
        models=tuple(
            ModelSpec(
                placement.name,
                placement.artifact.sha256,
                experiment.runtime,
                placement.threads,
                experiment.delegate,
                experiment.measure.batch,
            )
            for placement in placements
        ),
        data=DataSpec(samples.x_test.stem, samples.y_test.stem, samples.count, samples.scale, samples.offset),
        metric=experiment.metric,
        measure=_measure_spec(experiment),
        limits=LimitSpec(experiment.limits.block_timeout_s, experiment.limits.memory_mib, experiment.limits.cpu_s),
        conditions=conditions,
        baseline=baseline if baseline in names else "",
        owner=owner(),
    )


def check_job(experiment: Experiment) -> None:
    """See, before anything is built, that an agent would take the job that ``experiment`` comes to.

    Raises:
        UsageError: if its result would be too large for one message.
    """
    try:
        check_size(len(experiment.variants) * len(experiment.threads), _measure_spec(experiment))
    except ProtocolError as error:
        raise UsageError(f"{experiment.file}: {error}") from error


def _measure_spec(experiment: Experiment) -> MeasureSpec:
    asked = experiment.measure
    return MeasureSpec(
        processes=asked.processes,
        warmup_s=asked.warmup_s,
        timing_s=asked.timing_s,
        # Enough of them for an invoke of 10 µs to fill the time.
        max_invokes=min(1_000_000, max(20_000, round(asked.timing_s * 100_000))),
        seed=experiment.seed,
        precision=asked.precision,
        time_limit_s=asked.time_limit_s,
        sustained_s=asked.sustained_s,
        profile=asked.profile,
    )


def measure(
    client: AgentClient,
    spec: JobSpec,
    placements: Sequence[Placement],
    samples: Samples,
    cache: Cache,
    reuse: bool,
    progress: Progress,
    wait: bool = False,
) -> MeasuredJob:
    """Have a job done, or take it over from an earlier run of the same job on the same device and runtimes.

    With ``wait`` a device that another has leased is waited for.

    Raises:
        DeviceLeased: if another has the device, and it is not waited for.
        DeviceError: if the device cannot be reached, has no room, or the job could not be done.
        StorageError: if this machine's disk is full.
    """
    hello = client.hello
    runtimes = sorted((runtime.name, runtime.version) for runtime in hello.runtimes)
    # By name too: two boards of one kind say the same of themselves.
    key = key_of(client.device, to_json(spec), to_json(hello.device), runtimes, hello.agent_version)
    folder = cache.subfolder("measurements") / key
    if reuse and folder.is_dir():
        earlier = _loaded(folder, reused=True)
        # What failed or was disturbed may have been so for the day's reasons: it is tried again, not taken over.
        if not earlier.result.failures and not any(map(is_disturbed, earlier.result.measurements)):
            progress.stage("measure").finish("taken over from an earlier run (--reuse)")
            return earlier
    # Two runs that ask for the same would share one job, and the first to finish would have it forgotten.
    with cache.lock("measurements", key):
        job_id = _picked_up(client, spec)
        if job_id is None:
            _lease(client, spec, wait, progress)
            _push(client, placements, samples, progress)
            job_id = client.submit(spec)
        _follow(client, job_id, progress)
        _collect(client, job_id, cache, key)
        # The results are here: a connection that is cut now does not matter, and the lease ends by itself.
        with suppress(DeviceUnreachable):
            client.release()
        return _loaded(folder, reused=False)


def owner() -> str:
    """Return whose jobs ours are: the user and this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:200]


def holder_of(name: str) -> str:
    """Return how others are told who has a device: the owner and the experiment ``name``."""
    return f"{owner()}, run {name}"[:200]


def _picked_up(client: AgentClient, spec: JobSpec) -> str | None:
    """Return the id of the job that an earlier run has left on the device."""
    found = client.find(spec)
    if found.state == "unknown":
        return None
    if found.state == "cancelled":
        client.acknowledge(found.job_id)
        return None
    return found.job_id


def _lease(client: AgentClient, spec: JobSpec, wait: bool, progress: Progress) -> None:
    waiting: list[Stage] = []

    def on_wait(lease: Lease | None) -> None:
        who = f": held by {printable(lease.holder)} since {printable(lease.since_utc)}" if lease else ""
        waiting.append(progress.stage(f"waiting for {client.device}{who}"))

    client.acquire(holder_of(spec.name), on_wait if wait else None)
    for stage in waiting:
        stage.finish("it is free")


def _push(client: AgentClient, placements: Sequence[Placement], samples: Samples, progress: Progress) -> None:
    stage = progress.stage("push", unit="bytes")
    blobs = [Blob(placement.artifact.sha256, Path(placement.artifact.path)) for placement in placements]
    blobs += [Blob(path.stem, path) for path in (samples.x_test, samples.y_test)]
    sent = client.push(blobs, stage.update)
    stage.finish(f"{sent} bytes sent" if sent else "nothing to send, the device has it all")


def _follow(client: AgentClient, job_id: str, progress: Progress) -> None:
    stage = progress.stage("measure", unit="blocks")

    def on_event(event: JobEvent) -> None:
        stage.update(event.done, event.total)

    state = client.follow(job_id, on_event)
    stage.finish(state)
    if state == "cancelled":
        client.acknowledge(job_id)  # or the next run would find it, still cancelled
        raise AgentError(f"job {job_id} was cancelled on the device; run again to have it done", code=0)


def _collect(client: AgentClient, job_id: str, cache: Cache, key: str) -> None:
    """Bring the result here, whole, before the agent is told that it may forget it."""
    result = client.result(job_id)
    with cache.entry("measurements", key, replace=True) as (folder, _):
        client.fetch_files(result, folder, lambda done, total: None)
        write_text(folder / "result.json", json.dumps(to_json(result), indent=1))
    client.acknowledge(job_id)


def _loaded(folder: Path, reused: bool) -> MeasuredJob:
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return MeasuredJob(from_json(JobResult, content), folder, reused)
