import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import wait_for

import device_agent
from device_agent.protocol import MeasureSpec

SOURCES = sorted(Path(device_agent.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_agent_keeps_to_the_grammar_of_python_3_9(path):
    ast.parse(path.read_text(), feature_version=(3, 9))


# A coverage run would follow into the processes whose size is at stake.
UNWATCHED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def test_what_the_daemon_imports_loads_no_numpy_tensorflow_or_openssl():
    program = (
        "import device_agent, device_agent.cli, device_agent.daemon, device_agent.protocol, sys; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=UNWATCHED
    ).stdout.split()
    assert "device_agent.server" in loaded
    for heavy in ("numpy", "tensorflow", "pandas", "_ssl", "_hashlib", "asyncio", "pipeline", "models"):
        assert heavy not in loaded


def test_an_idle_daemon_takes_20_mb_at_most_also_after_a_job(make_agent):
    agent = make_agent(environment=UNWATCHED)
    host = agent.host()
    result = host.measure(agent.spec(agent.null_model()))
    host.call("job.acknowledge", job_id=result.job_id)
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    resident_kib = int(status.split("VmRSS:")[1].split()[0])
    assert 5 * 1024 < resident_kib <= 20 * 1024


def switches(agent) -> int:
    """Return how often a thread of the daemon has gone to sleep."""
    tasks = Path(f"/proc/{agent.process.pid}/task").iterdir()
    return sum(int((task / "status").read_text().split("voluntary_ctxt_switches:")[1].split()[0]) for task in tasks)


def processor_s(process: Path) -> float:
    """Return the processor time that ``/proc/<pid>`` has used itself, proc(5): utime and stime."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_an_idle_daemon_does_nothing(agent, host):
    before = switches(agent)
    with pytest.raises(TimeoutError):
        host.socket.settimeout(0.5)
        host.socket.recv(1)
    assert switches(agent) - before <= 2


def test_beside_a_timed_block_no_thread_runs_and_nothing_is_polled(agent, host):
    # Longer than the test may take: it ends by being cancelled.
    measure = MeasureSpec(processes=1, warmup_s=0, timing_s=50, max_invokes=1_000_000)
    job_id = host.submit(agent.spec(agent.null_model(invoke_us=1000), measure=measure))
    # A host that follows the job, as a run does: it sleeps until the block has ended.
    host.ask("job.follow", job_id=job_id)
    child = Path(f"/proc/{agent.running_child()}")
    wait_for(lambda: processor_s(child) > 1)
    before = switches(agent)
    until_s = processor_s(child) + 0.5
    wait_for(lambda: processor_s(child) > until_s)
    assert [task.name for task in (child / "task").iterdir()] == [child.name]
    assert switches(agent) == before
    agent.host().call("job.cancel", job_id=job_id)
