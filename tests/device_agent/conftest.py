"""A real agent in a real process, and a small host that speaks to it."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from agents import CALM

from device_agent.home import socket_path
from device_agent.protocol import (
    UNKNOWN_JOB,
    DataSpec,
    Hello,
    JobResult,
    JobSpec,
    LimitSpec,
    MeasureSpec,
    ModelSpec,
    blob_path,
    decode,
    encode,
    from_json,
    job_file_path,
    part_path,
    to_json,
)

# Only the stand-in runtime is needed by most tests; asking the others takes a second.
NULL_ONLY = {"litert": "/bin/false", "tflite_runtime": "/bin/false"}
QUICK = MeasureSpec(processes=2, warmup_s=0.0, timing_s=0.0, min_invokes=8, max_invokes=8)


class RpcError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Host:
    """One connection to an agent."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(60)
        self.socket = connected
        self.stream = connected.makefile("rb")
        self.hello = from_json(Hello, self.read()["params"])
        self.token = ""
        self._ids = itertools.count(1)

    def read(self) -> dict:
        line = self.stream.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError(f"the connection has ended after {line!r}")
        return decode(line)

    def send(self, line: bytes) -> dict:
        self.socket.sendall(line)
        return self.read()

    def ask(self, method: str, **params) -> int:
        number = next(self._ids)
        self.socket.sendall(encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        return number

    def call(self, method: str, **params) -> dict:
        number = self.ask(method, **params)
        return self.answer(number)

    def answer(self, number: int) -> dict:
        answer = self.read()
        assert answer["id"] == number
        if "error" in answer:
            raise RpcError(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    def lease(self, holder: str = "ana@laptop, run a test", ttl_s: float = 60.0, wait: bool = False) -> str:
        self.token = self.call("lease.acquire", holder=holder, ttl_s=ttl_s, wait=wait)["token"]
        return self.token

    def submission(self, spec: JobSpec) -> dict:
        """Return the parameters of ``job.submit``, under a lease that is taken with the first one that is new here."""
        if not self.token and self.call("job.find", spec=to_json(spec))["state"] == "unknown":
            self.lease()
        return {"spec": to_json(spec), "token": self.token}

    def submit(self, spec: JobSpec) -> str:
        return self.call("job.submit", **self.submission(spec))["job_id"]

    def events(self, job_id: str, after: int = 0):
        """Yield the events, at last the state."""
        self.ask("job.follow", job_id=job_id, after=after)
        while "method" in (message := self.read()):
            yield message["params"]
        yield message["result"]["state"]

    def finish(self, job_id: str) -> JobResult:
        list(self.events(job_id))
        return from_json(JobResult, self.call("job.result", job_id=job_id))

    def acknowledge(self, job_id: str) -> None:
        """Let the agent forget a job; an earlier request whose answer was lost may have done that already."""
        try:
            self.call("job.acknowledge", job_id=job_id)
        except RpcError as error:
            assert error.code == UNKNOWN_JOB

    def measure(self, spec: JobSpec) -> JobResult:
        return self.finish(self.submit(spec))

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@dataclass
class Agent:
    """A daemon process and its home."""

    home: Path
    pythons: dict[str, str] = field(default_factory=lambda: dict(NULL_ONLY))
    process: subprocess.Popen | None = None
    hosts: list[Host] = field(default_factory=list)
    environment: dict[str, str] | None = None
    options: tuple[str, ...] = ()
    cwd: Path | None = None

    def start(self) -> Agent:
        self.home.parent.mkdir(parents=True, exist_ok=True)
        ready, signalled = os.pipe()
        command = [sys.executable, "-m", "device_agent", "serve", "--home", str(self.home)]
        command += [f"--runtime={name}={python}" for name, python in self.pythons.items()]
        command += self.options
        with self.home.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, f"--ready-fd={signalled}"],
                pass_fds=[signalled],
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.cwd,
            )
        os.close(signalled)
        with os.fdopen(ready) as stream:
            stream.read()
        return self

    def log(self) -> str:
        return self.home.with_suffix(".log").read_text()

    def connect(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(socket_path(self.home)))
        return connected

    def host(self) -> Host:
        try:
            self.hosts.append(Host(self.connect()))
        except OSError as error:
            raise AssertionError(f"no hello; the daemon ended with {self.process.poll()}:\n{self.log()}") from error
        return self.hosts[-1]

    def host_over(self, connected: socket.socket) -> Host:
        """Return a host that speaks through a connection of its own, such as one that breaks down."""
        return Host(connected)

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(10)

    def children(self) -> list[int]:
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def running_child(self) -> int:
        """Wait for a child; nothing but /proc tells of one."""
        while not (children := self.children()):
            time.sleep(0.01)
        return children[0]

    def put_part(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        Path(part_path(str(self.home), sha256)).write_bytes(content)
        return sha256

    def push(self, content: bytes) -> str:
        sha256 = self.put_part(content)
        host = self.host()
        host.call("blob.commit", sha256=sha256, size_bytes=len(content))
        host.close()
        return sha256

    def push_array(self, array) -> str:
        content = io.BytesIO()
        np.save(content, array)
        return self.push(content.getvalue())

    def null_model(self, name: str = "model", **description) -> ModelSpec:
        content = json.dumps({"input_shape": [1, 4], **description}).encode()
        return ModelSpec(name, self.push(content), "null")

    def data(self, inputs=None, labels=None, **settings) -> DataSpec:
        inputs = np.eye(4, dtype=np.float32) if inputs is None else inputs
        labels = np.arange(4) if labels is None else labels
        settings = {"samples": len(inputs), **settings}
        return DataSpec(self.push_array(inputs), self.push_array(labels), **settings)

    def spec(self, *models: ModelSpec, data: DataSpec | None = None, metric: str = "top1", **settings) -> JobSpec:
        # Tests run beside each other on a machine of a few cores: that others are busy is no disturbance here.
        settings = {"measure": QUICK, "limits": LimitSpec(wall_s=60), "conditions": CALM, **settings}
        return JobSpec("a test", models, data or self.data(), metric, **settings)

    def blob(self, sha256: str) -> Path:
        return Path(blob_path(str(self.home), sha256))

    def array(self, job_id: str, name: str):
        return np.load(job_file_path(str(self.home), job_id, name))

    def end(self) -> None:
        for host in self.hosts:
            host.close()
        if self.process.poll() is None:
            self.kill(signal.SIGTERM)


@pytest.fixture
def make_agent(tmp_path):
    agents = []

    def make(home: Path = tmp_path / "home", **settings) -> Agent:
        agents.append(Agent(home, **settings))
        return agents[-1].start()

    yield make
    for agent in agents:
        agent.end()


@pytest.fixture(scope="module")
def shared_host(tmp_path_factory):
    """A host of one agent for all tests that leave nothing behind."""
    agent = Agent(tmp_path_factory.mktemp("shared") / "home").start()
    yield agent.host()
    agent.end()


@pytest.fixture
def untraced(monkeypatch):
    """Start processes without coverage: being traced takes longer than most of what they do, and is lost by kill -9."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]:
        monkeypatch.delenv(name)


@pytest.fixture
def agent(make_agent) -> Agent:
    return make_agent()


@pytest.fixture
def host(agent) -> Host:
    return agent.host()


@pytest.fixture
def rpc_error():
    """Return a context manager that expects a JSON-RPC error of a code."""

    def expect(code: int, match: str):
        return pytest.raises(RpcError, match=match, check=lambda error: error.code == code)

    return expect
