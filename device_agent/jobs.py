"""The queue of jobs: on disk, run one at a time in the order they came, kept until the host has acknowledged them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_agent import log
from device_agent.blobs import BlobStore
from device_agent.children import Stopped
from device_agent.errors import Refusal
from device_agent.files import disk_full, is_disk_full
from device_agent.job_folder import Job, load_jobs, new_job
from device_agent.job_run import JobRun
from device_agent.lease import Leases
from device_agent.probe import Probes
from device_agent.protocol import (
    BLOB_MISSING,
    FINAL_STATES,
    INVALID_PARAMS,
    NOT_FINISHED,
    UNKNOWN_JOB,
    Failure,
    JobEvent,
    JobResult,
    JobSpec,
    ProtocolError,
    to_json,
)
from device_agent.schedule import check_size
from device_agent.sensors import read_device, read_state
from device_agent.sha256 import sha256_of_bytes


def job_id_of(spec: JobSpec) -> str:
    """Return the id of a job: the first 16 digits of the SHA-256 of its specification as canonical JSON."""
    canonical = json.dumps(to_json(spec), sort_keys=True, separators=(",", ":"))
    return sha256_of_bytes(canonical.encode())[:16]


class JobQueue:
    """All jobs of this agent; every method may be called from any thread."""

    def __init__(self, home: Path, blobs: BlobStore, probes: Probes, leases: Leases, root: Path) -> None:
        self._home = home
        self._blobs = blobs
        self._probes = probes
        self._leases = leases
        self._root = root
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._run: tuple[str, JobRun] | None = None

    def load(self) -> None:
        """Take up the jobs on disk; those that were not finished are queued again, under the lease they had."""
        self._jobs = load_jobs(self._home)
        for job in self._jobs.values():
            if job.grant and job.state not in FINAL_STATES:
                self._leases.restore(job.grant)

    def listed(self) -> list[dict[str, Any]]:
        """Return id, name, state and holder of every job, in the order they came."""
        with self._changed:
            return [
                {"job_id": job.job_id, "name": job.spec.name, "state": job.state, "holder": job.holder}
                for job in self._jobs.values()
            ]

    def blobs_in_use(self) -> set[str]:
        """Return the SHA-256 of every blob that a job here still needs."""
        with self._changed:
            unfinished = (job for job in self._jobs.values() if job.state not in FINAL_STATES)
            return {sha256 for job in unfinished for sha256 in _blobs_of(job.spec)}

    def find(self, spec: JobSpec) -> tuple[str, str]:
        """Return the id of the job of this specification, and its state: "unknown" when it is not here."""
        job_id = job_id_of(spec)
        with self._changed:
            return job_id, self._jobs[job_id].state if job_id in self._jobs else "unknown"

    def submit(self, spec: JobSpec, token: str) -> Job:
        """Queue ``spec`` under the lease of ``token``, or return the job of the same specification that is here.

        Raises:
            Refusal: NOT_LEASED; BLOB_MISSING if its models or data have not been sent; INVALID_PARAMS if it is too
                large.
        """
        job_id = job_id_of(spec)
        with self._changed:
            if job_id not in self._jobs:
                self._check_size(spec)
                self._jobs[job_id] = self._new_job(job_id, spec, token)
                self._changed.notify_all()
            return self._jobs[job_id]

    def _new_job(self, job_id: str, spec: JobSpec, token: str) -> Job:
        grant = self._leases.keep(token)
        try:
            self._check_blobs(spec, token)
            order = 1 + max((job.order for job in self._jobs.values()), default=0)
            return new_job(self._home, job_id, spec, order, grant)
        except (Refusal, OSError):
            self._leases.let_go(token)
            raise

    def follow(self, job_id: str, after: int) -> Iterator[JobEvent]:
        """Yield the events with a ``seq`` above ``after`` as they come, until the job is finished."""
        job, seen = self._job(job_id), max(after, 0)
        while events := self._events_after(job, seen):
            yield from events
            seen += len(events)

    def _events_after(self, job: Job, seen: int) -> list[JobEvent]:
        """Wait for events; there are none only when the job is finished."""
        with self._changed:
            self._changed.wait_for(lambda: len(job.events) > seen or job.state in FINAL_STATES)
            return job.events[seen:]

    def state(self, job_id: str) -> str:
        """Return the job's state."""
        return self._job(job_id).state

    def result(self, job_id: str) -> JobResult:
        """Return the result of a finished job.

        Raises:
            Refusal: NOT_FINISHED or UNKNOWN_JOB.
        """
        return self._finished(job_id).load_result()

    def acknowledge(self, job_id: str) -> None:
        """Forget a finished job and its files; the same specification would then run anew."""
        with self._changed:
            self._finished(job_id).remove()
            del self._jobs[job_id]

    def cancel(self, job_id: str) -> str:
        """Stop the job, now if it is running, and return its state, which is then final."""
        with self._changed:
            job = self._job(job_id)
            if job.state == "queued":
                self._finish(job, self._new_run(job), "cancelled")
            elif self._run and self._run[0] == job_id:
                self._run[1].stop()
            self._changed.wait_for(lambda: job.state in FINAL_STATES)
            return job.state

    def run_forever(self) -> None:
        """Run the jobs, one after another; this is the runner thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next() is not None)
                job = self._next()
                if job is None:
                    continue
                run = self._new_run(job)
                self._run = (job.job_id, run)
                job.start()
            try:
                self._run_job(job, run)
            except Exception:  # noqa: BLE001 - a bug, and the next job is to run all the same
                log.bug(f"job {job.job_id} has no result")
                with self._changed:
                    job.state = "failed"
                    self._ended(job)

    def _new_run(self, job: Job) -> JobRun:
        return JobRun(self._home, job.job_id, job.spec, self._probes, self._root)

    def _next(self) -> Job | None:
        return next((job for job in self._jobs.values() if job.state == "queued"), None)

    def _run_job(self, job: Job, run: JobRun) -> None:
        extra: tuple[Failure, ...] = ()
        try:
            # Now, so that no host's hello starts a probe beside a timed block.
            self._probes.all()
            job.prepare()
            self._report(job, "start", "", 0, job.blocks)
            run.run(lambda *event: self._report(job, *event))
            state = "done"
        except Stopped:
            state = "cancelled"
        except Exception as error:  # noqa: BLE001 - a bug or a full disk ends this job, not the daemon
            state, extra = "failed", _failures(job.spec, run, error, self._home)
            log.bug(f"job {job.job_id} failed")
        with self._changed:
            self._run = None
            self._finish(job, run, state, extra)

    def _report(self, job: Job, stage: str, model: str, done: int, total: int) -> None:
        with self._changed:
            job.add_event(stage, model, done, total)
            self._changed.notify_all()

    def _finish(self, job: Job, run: JobRun, state: str, extra: tuple[Failure, ...] = ()) -> None:
        """Write the result and make the state final; called with the lock held."""
        result = JobResult(
            job_id=job.job_id,
            state=state,
            started_utc=job.started_utc,
            finished_utc=log.utc_now(),
            device=read_device(self._root),
            measurements=run.measurements(),
            failures=run.failures() + extra,
            files=run.files(),
            before=run.before(),
            after=read_state(self._root),
        )
        job.finish(result)
        self._ended(job)

    def _ended(self, job: Job) -> None:
        if job.grant:
            self._leases.let_go(job.grant.token)
        self._changed.notify_all()

    def _job(self, job_id: str) -> Job:
        try:
            return self._jobs[job_id]
        except KeyError:
            raise Refusal(UNKNOWN_JOB, f"no job {job_id} here; submit it, it may have been acknowledged") from None

    def _finished(self, job_id: str) -> Job:
        job = self._job(job_id)
        if job.state not in FINAL_STATES:
            raise Refusal(NOT_FINISHED, f"job {job_id} is {job.state}; follow it to its end or cancel it")
        return job

    def _check_size(self, spec: JobSpec) -> None:
        try:
            check_size(len(spec.models), spec.measure)
        except ProtocolError as error:
            raise Refusal(INVALID_PARAMS, str(error)) from error

    def _check_blobs(self, spec: JobSpec, token: str) -> None:
        missing = self._blobs.missing(_blobs_of(spec), token)
        if missing:
            raise Refusal(BLOB_MISSING, f"not here yet: {', '.join(missing)}; send and commit them first")


def _blobs_of(spec: JobSpec) -> list[str]:
    return [*(model.sha256 for model in spec.models), spec.data.inputs_sha256, spec.data.labels_sha256]


def _failures(spec: JobSpec, run: JobRun, error: Exception, home: Path) -> tuple[Failure, ...]:
    """Return a failure for each model that a run which broke off has left without a result."""
    settled = {measurement.model for measurement in run.measurements()} | {failure.model for failure in run.failures()}
    if isinstance(error, OSError) and is_disk_full(error):
        kind, message = "disk", str(disk_full(home))
    else:
        kind, message = "internal", f"{type(error).__name__}: {error}; the agent's log has the traceback"
    return tuple(Failure(model.name, kind, message) for model in spec.models if model.name not in settled)
