"""Jobs on a device that some run has handed in: followed to their end or cancelled from anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from device_agent.protocol import Failure, JobEvent
from pipeline.agent_client import AgentClient
from pipeline.devices.agent_answers import JobSummary
from pipeline.devices.agent_stream import printable
from pipeline.devices.inventory import find_device
from pipeline.devices.transport import open_transport
from pipeline.errors import UsageError
from pipeline.reporting.progress import Progress


@dataclass(frozen=True)
class EndedJob:
    """How a job ended: its state, and what its models came to. It is still on the device."""

    job_id: str
    name: str
    state: str
    measured: int
    failures: tuple[Failure, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """What a person is told of it."""
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return (
            f"job {self.job_id} ({printable(self.name)}) is {self.state}: {self.measured} measured{failed}",
            *(f"{failure.model}: {failure.kind}: {printable(failure.message)}" for failure in self.failures),
        )


def follow_job(device_name: str, job_id: str, progress: Progress) -> EndedJob:
    """Follow a job on a device to its end and return what came of it; it stays there for the run that wants it.

    Raises:
        UsageError: if the device or the job is unknown; the message lists those there are.
        DeviceError: if the device cannot be reached.
    """
    with AgentClient(open_transport(find_device(device_name)), device_name) as client:
        job = _find_job(client, job_id)
        stage = progress.stage(f"measure {printable(job.name)}", unit="blocks")

        def on_event(event: JobEvent) -> None:
            stage.update(event.done, event.total)

        stage.finish(client.follow(job_id, on_event))
        result = client.result(job_id)
    return EndedJob(job_id, job.name, result.state, len(result.measurements), result.failures)


def cancel_job(device_name: str, job_id: str) -> str:
    """Stop a job on a device and return the state that it ended in: one that was finished stays what it was.

    Raises:
        UsageError: if the device or the job is unknown; the message lists those there are.
        DeviceError: if the device cannot be reached.
    """
    with AgentClient(open_transport(find_device(device_name)), device_name) as client:
        _find_job(client, job_id)
        return client.cancel(job_id)


def _find_job(client: AgentClient, job_id: str) -> JobSummary:
    jobs = client.status().jobs
    for job in jobs:
        if job.job_id == job_id:
            return job
    known = "; ".join(printable(f"{job.job_id} {job.state} {job.name}") for job in jobs) or "none"
    raise UsageError(f'unknown job "{job_id}" on {client.device}; jobs there: {known}')
