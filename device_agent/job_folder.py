"""A job on disk: ``<home>/jobs/<job id>/``, written so that it can be read again after any moment's power cut."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

from device_agent import log
from device_agent.files import sync_folder, write_file
from device_agent.lease import Grant
from device_agent.protocol import (
    FINAL_STATES,
    JobEvent,
    JobResult,
    JobSpec,
    ProtocolError,
    check_job_id,
    encode,
    from_json,
    to_json,
)
from device_agent.schedule import planned_blocks

_SCHEMA = 1


class Job:
    """One job; its owner, the queue, sees to it that only one thread changes it at a time."""

    def __init__(self, folder: Path, spec: JobSpec, order: int, grant: Grant | None) -> None:
        self.job_id = folder.name
        self.spec = spec
        self.order = order
        self.grant = grant
        self.state = "queued"
        self.started_utc = ""
        self.events: list[JobEvent] = []
        self._folder = folder
        self._unwritten_result: JobResult | None = None

    @property
    def holder(self) -> str:
        """Who had the lease when the job came; empty for a job of an agent that knew no leases."""
        return self.grant.holder if self.grant else ""

    @property
    def blocks(self) -> int:
        """How many blocks the job has at least; see ``planned_blocks``."""
        return planned_blocks(self.spec)

    def start(self) -> None:
        """Note that the job is running; on disk it stays queued, since that is what a restart makes of it."""
        self.state = "running"
        self.started_utc = self.started_utc or log.utc_now()

    def prepare(self) -> None:
        """Make the folders of a run, and keep when it first began."""
        for name in ("blocks", "files"):
            (self._folder / name).mkdir(exist_ok=True)
        self.write_state("queued")

    def add_event(self, stage: str, model: str, done: int, total: int) -> None:
        """Append an event, but for one that was there before the job was taken up again."""
        # A cool-down may well come twice.
        told = ((event.stage, event.model, event.done) for event in self.events)
        if stage != "cooldown" and (stage, model, done) in told:
            return
        event = JobEvent(self.job_id, len(self.events) + 1, stage, model, done, total)
        _append_line(self._folder / "events.jsonl", encode(to_json(event)))
        self.events.append(event)

    def finish(self, result: JobResult) -> None:
        """Keep the result and make its state final.

        A full disk may hinder the writing: the result is then kept in memory, and after a restart the job is taken up
        again with the blocks that it has.
        """
        try:
            write_file(self._folder / "result.json", json.dumps(to_json(result)).encode())
            done = max((event.done for event in self.events), default=0)
            self.add_event("finish", "", done, done)
            self.write_state(result.state)
        except OSError as error:
            log.note(f"job {self.job_id}: the result is kept in memory only: {error}")
            self._unwritten_result = result
        self.state = result.state

    def load_result(self) -> JobResult:
        """Return the result of a finished job."""
        if self._unwritten_result:
            return self._unwritten_result
        return from_json(JobResult, json.loads((self._folder / "result.json").read_bytes()))

    def remove(self) -> None:
        """Remove the folder, at once as far as a restart is concerned."""
        trash = self._folder.with_name(f".trash-{self.job_id}")
        shutil.rmtree(trash, ignore_errors=True)
        self._folder.rename(trash)
        sync_folder(trash.parent)
        shutil.rmtree(trash, ignore_errors=True)

    def write_state(self, state: str) -> None:
        """Write what a restart has to know."""
        kept = {
            "schema": _SCHEMA,
            "state": state,
            "order": self.order,
            "started_utc": self.started_utc,
            "lease": to_json(self.grant) if self.grant else None,
        }
        write_file(self._folder / "state.json", json.dumps(kept).encode())


def new_job(home: Path, job_id: str, spec: JobSpec, order: int, grant: Grant) -> Job:
    """Write a new job under the lease ``grant``; its folder appears when it is complete.

    Raises:
        OSError: if it cannot be written; nothing of it is then left.
    """
    folder = home / "jobs" / job_id
    unfinished = folder.with_name(f".new-{job_id}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        write_file(unfinished / "spec.json", json.dumps(to_json(spec)).encode())
        Job(unfinished, spec, order, grant).write_state("queued")
        unfinished.rename(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    sync_folder(folder.parent)
    return Job(folder, spec, order, grant)


def load_jobs(home: Path) -> dict[str, Job]:
    """Return the jobs on disk by their id, in the order they came; what was left half-made or half-removed goes."""
    jobs = []
    for folder in (home / "jobs").iterdir():
        if folder.name.startswith("."):
            shutil.rmtree(folder, ignore_errors=True)
            continue
        try:
            check_job_id(folder.name)
            jobs.append(_load_job(folder))
        except (OSError, ValueError, KeyError) as error:
            log.note(f"{folder} is not a job and left alone: {error}")
    return {job.job_id: job for job in sorted(jobs, key=lambda job: job.order)}


def _load_job(folder: Path) -> Job:
    kept = json.loads((folder / "state.json").read_bytes())
    if kept["schema"] != _SCHEMA:
        raise ProtocolError(f"schema is {kept['schema']!r}; expected {_SCHEMA}")
    spec = from_json(JobSpec, json.loads((folder / "spec.json").read_bytes()))
    grant = from_json(Grant, kept["lease"]) if kept.get("lease") else None
    job = Job(folder, spec, int(kept["order"]), grant)
    job.started_utc = kept["started_utc"]
    job.state = kept["state"] if kept["state"] in FINAL_STATES else "queued"
    job.events = _load_events(folder / "events.jsonl")
    return job


def _load_events(path: Path) -> list[JobEvent]:
    content = path.read_bytes() if path.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        # A power cut has left half a line.
        os.truncate(path, len(whole))
    return [from_json(JobEvent, json.loads(line)) for line in whole.splitlines()]


def _append_line(path: Path, line: bytes) -> None:
    before = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab", buffering=0) as file:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
    except OSError:
        if path.exists():
            os.truncate(path, before)
        raise
