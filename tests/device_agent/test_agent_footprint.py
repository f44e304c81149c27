import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import device_agent

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


def test_an_idle_daemon_does_nothing(agent, host):
    def switches():
        tasks = Path(f"/proc/{agent.process.pid}/task").iterdir()
        return sum(int((task / "status").read_text().split("voluntary_ctxt_switches:")[1].split()[0]) for task in tasks)

    before = switches()
    with pytest.raises(TimeoutError):
        host.socket.settimeout(0.5)
        host.socket.recv(1)
    assert switches() - before <= 2
