"""A real agent on this machine with a home of its own, and jobs for it: what several benchmarks begin with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from device_agent.protocol import JobResult, JobSpec
from pipeline.agent_client import AgentClient, Blob
from pipeline.devices.local import LocalTransport, default_agent
from pipeline.export import sha256


@contextmanager
def local_agent(home: Path) -> Iterator[AgentClient]:
    """Give a client of an agent with an empty home; the agent is ended afterwards."""
    transport = LocalTransport("local", (*default_agent(), "attach", "--home", str(home)))
    with AgentClient(transport, "local") as client:
        try:
            yield client
        finally:
            os.kill(int((home / "agent.lock").read_text()), signal.SIGTERM)


def blob_of(array: np.ndarray[Any, Any], folder: Path) -> Blob:
    """Write ``array`` into ``folder`` as an ``.npy`` file, under the SHA-256 of its content."""
    path = folder / "array.npy"
    np.save(path, array)
    digest = sha256(path.read_bytes())
    return Blob(digest, path.replace(folder / f"{digest}.npy"))


def done(client: AgentClient, spec: JobSpec, blobs: list[Blob], files: Path | None = None) -> JobResult:
    """Return the result of a job after it was forgotten on the other side; a failure ends the program.

    With ``files`` the job's raw samples are brought into that folder.
    """
    client.acquire("a benchmark")
    client.push(blobs, lambda done, total: None)
    job_id = client.submit(spec)
    client.follow(job_id, lambda event: None)
    result = client.result(job_id)
    if files is not None:
        client.fetch_files(result, files, lambda done, total: None)
    client.acknowledge(job_id)
    client.release()
    if result.failures:
        raise SystemExit(str(result.failures[0]))
    return result


def make_models(script: Path, *arguments: str) -> None:
    """Run a script that makes models, in a process that takes TensorFlow's threads and memory along when it ends."""
    made = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)
    if made.returncode:
        raise SystemExit(f"the models cannot be made: {made.stderr[-2000:]}")
