"""What the network and other users of the board can reach of a real agent; docs/security.md has the claims."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from device_agent.home import socket_path
from device_agent.protocol import DataSpec, encode, job_file_path, part_path

NOBODY = 65534
NETWORK = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6")


def process_tree(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [pid, *(each for child in children for each in process_tree(child))]


def sockets(pids: list[int]) -> set[str]:
    """Return the inodes of the sockets that these processes hold."""
    links = []
    for link in [link for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir()]:
        # What was closed since it was listed is no socket of theirs.
        with suppress(FileNotFoundError):
            links.append(link.readlink().name)
    return {name.removeprefix("socket:[").rstrip("]") for name in links if name.startswith("socket:")}


def network_sockets(pids: list[int]) -> set[str]:
    """Return the inodes of those that are of the network, listening or not."""
    tables = [Path(f"/proc/{pids[0]}/net/{table}") for table in NETWORK]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return sockets(pids) & {row[9] for row in rows}


def test_a_process_that_listens_would_be_found():
    script = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listening:
        listening.stdout.readline()
        assert len(network_sockets(process_tree(listening.pid))) == 1
        listening.stdin.close()


def test_neither_the_daemon_nor_a_model_s_process_has_a_socket_of_the_network(agent, host):
    host.submit(agent.spec(agent.null_model(fault="hang")))
    agent.running_child()
    tree = process_tree(agent.process.pid)
    assert len(tree) == 2
    assert len(sockets(tree)) >= 2, "the one that listens, and our connection: both unix sockets"
    assert network_sockets(tree) == set()


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    place = Path(tempfile.mkdtemp(prefix="edgepress-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def served(make_agent, open_place):
    """An agent with a job that was measured, below a folder that every user may enter."""
    agent = make_agent(open_place / "home")
    host = agent.host()
    result = host.measure(agent.spec(agent.null_model()))
    agent.put_part(b"half of something")
    return agent, result


def as_nobody(attempt: Callable[[], object]) -> str:
    """Return what comes of ``attempt`` in a process of another user: "done", or the name of the error."""
    if os.getuid():
        pytest.skip("only root can become another user")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                attempt()
                said = "done"
            except OSError as error:
                said = errno.errorcode[error.errno or 0]
            os.write(writer, said.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said


def listed(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(str(path))


def test_another_user_can_do_what_is_not_forbidden(open_place):
    assert as_nobody(lambda: listed(open_place)) == "done"
    (open_place / "theirs").write_text("")
    assert as_nobody((open_place / "theirs").read_bytes) == "done"


def test_another_user_cannot_talk_to_the_daemon_nor_end_it(served):
    agent, _ = served
    assert as_nobody(lambda: connect(socket_path(agent.home))) == "EACCES"
    assert as_nobody(lambda: os.kill(agent.process.pid, signal.SIGTERM)) == "EPERM"
    assert agent.process.poll() is None


def test_another_user_cannot_talk_to_a_daemon_whose_socket_lies_in_a_shared_folder(make_agent, open_place):
    agent = make_agent(open_place / ("d" * 120) / "home")
    path = socket_path(agent.home)
    assert path.parent.parent == Path("/tmp")
    assert as_nobody(lambda: connect(path)) == "EACCES"


def test_another_user_cannot_read_blobs_jobs_and_results_nor_put_any(served):
    agent, result = served
    home, files = str(agent.home), [file.name for file in result.files]
    assert files
    blob = next(path for path in (agent.home / "blobs").iterdir() if not path.name.startswith("."))
    kept = [blob, *(Path(job_file_path(home, result.job_id, name)) for name in files)]
    for path in (*kept, agent.home / "jobs" / result.job_id / "spec.json", agent.home / "agent.lock"):
        assert path.is_file()
        assert as_nobody(path.read_bytes) == "EACCES", path
    for folder in (agent.home, agent.home / "blobs", agent.home / "jobs"):
        assert as_nobody(lambda folder=folder: listed(folder)) == "EACCES", folder
    assert as_nobody(lambda: Path(part_path(home, "ab" * 32)).write_bytes(b"mine")) == "EACCES"


def test_another_user_cannot_read_the_memory_or_the_environment_of_the_daemon(served):
    agent, _ = served
    for name in ("mem", "environ"):
        assert as_nobody(Path(f"/proc/{agent.process.pid}/{name}").read_bytes) == "EACCES", name


def test_a_lease_s_token_is_told_to_its_holder_alone(agent, host):
    token = host.lease()
    job_id = host.submit(agent.spec(agent.null_model(fault="hang")))
    agent.running_child()
    other = agent.connect()
    with other, other.makefile("rb") as stream:
        told = stream.readline()
        for method, params in (
            ("status", {}),
            ("lease.acquire", {"holder": "eve", "ttl_s": 60}),
            ("lease.release", {"token": "0" * 32}),
            ("job.follow", {"job_id": "0" * 16}),
            ("job.cancel", {"job_id": job_id}),
            ("job.result", {"job_id": job_id}),
        ):
            other.sendall(encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
            told += stream.readline()
    assert b"ana@laptop" in told, "who has the device, everybody is told"
    assert token.encode() not in told
    assert token not in agent.log()


class Trap:
    """What leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self):
        return Path.touch, (self._trace,)


def test_data_with_code_in_them_are_a_failure_and_the_code_is_not_run(agent, host, tmp_path):
    content = io.BytesIO()
    np.save(content, np.array([Trap(tmp_path / "trace")] * 4, dtype=object))
    data = DataSpec(agent.push(content.getvalue()), agent.push_array(np.arange(4)), samples=4)
    [failure] = host.measure(agent.spec(agent.null_model(), data=data)).failures
    assert (failure.kind, (tmp_path / "trace").exists()) == ("data", False)
    np.load(io.BytesIO(content.getvalue()), allow_pickle=True)
    assert (tmp_path / "trace").exists(), "the trap would have sprung"
