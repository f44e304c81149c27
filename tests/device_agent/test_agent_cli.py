import re
import signal
import stat
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from device_agent import __version__, home
from device_agent.errors import AgentError
from device_agent.protocol import PROTOCOL_VERSION, Hello, decode, from_json

AGENT = [sys.executable, "-m", "device_agent"]
NULL_ONLY = ["--runtime=litert=/bin/false", "--runtime=tflite_runtime=/bin/false"]


def run(*arguments, **settings):
    return subprocess.run([*AGENT, *map(str, arguments)], capture_output=True, text=True, timeout=60, **settings)


@pytest.fixture
def detached(tmp_path):
    """The home of daemons that ``attach`` starts, which are ended afterwards."""
    yield tmp_path / "home"
    subprocess.run(["kill", (tmp_path / "home" / "agent.lock").read_text()], check=True)


def attach(place, **settings):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*AGENT, "attach", "--home", str(place), *NULL_ONLY], **pipes, **settings)


def test_attach_starts_the_daemon_and_relays(detached):
    process = attach(detached)
    request = b'{"jsonrpc":"2.0","id":1,"method":"status"}\n'
    out, err = process.communicate(request, timeout=30)
    hello, answer = map(decode, out.splitlines())
    assert from_json(Hello, hello["params"]).home == str(detached)
    assert answer["result"]["jobs"] == []
    assert (process.returncode, err) == (0, b"")


def test_several_attaches_at_once_start_one_daemon(detached):
    processes = [attach(detached) for _ in range(5)]
    for process in processes:
        assert decode(process.stdout.readline())["method"] == "hello"
    for process in processes:
        process.communicate(timeout=30)
    assert (detached / "agent.log").read_text().count("serving") == 1


def test_the_daemon_outlives_the_attach_that_started_it(detached):
    attach(detached, start_new_session=True).communicate(timeout=30)
    answer = run("status", "--home", detached)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_attach_says_why_the_daemon_does_not_start(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "blobs").write_text("in the way")
    answer = run("attach", "--home", tmp_path / "home", stdin=subprocess.DEVNULL)
    assert answer.returncode == 1
    assert answer.stderr == f"edgepress-agent: {tmp_path}/home cannot be the agent's home: File exists\n"


def test_attach_passes_on_what_the_daemon_says_last(tmp_path):
    with (tmp_path / "agent.lock").open("ab") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = run("attach", "--home", tmp_path, stdin=subprocess.DEVNULL)
    assert answer.returncode == 1
    assert "the agent did not start: edgepress-agent: another agent (process unknown) serves" in answer.stderr


def test_what_a_host_waits_for_at_each_connection_loads_neither_the_protocol_nor_the_daemon():
    script = "import sys, device_agent.cli, device_agent.attach; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "device_agent.reaching" in loaded
    assert {"device_agent.protocol", "device_agent.daemon", "device_agent.server", "numpy"}.isdisjoint(loaded)


def test_status_describes_the_agent(agent):
    answer = run("status", "--home", agent.home)
    assert answer.returncode == 0
    assert f"edgepress-agent {__version__}, protocol {PROTOCOL_VERSION}\n" in answer.stdout
    assert "runtime   litert not usable: /bin/false: ended with 1\n" in answer.stdout
    assert "runtime   null 1\n" in answer.stdout
    assert "lease     none\njob       none\n" in answer.stdout


def test_status_lists_jobs(agent, host):
    job_id = host.measure(agent.spec(agent.null_model())).job_id
    said = run("status", "--home", agent.home).stdout
    assert f"job       {job_id} done      a test, of ana@laptop, run a test\n" in said
    assert re.search(r"lease     ana@laptop, run a test since 20\S+Z, falls free in \d+ s unless renewed\n", said)


@pytest.mark.parametrize("killed", [False, True])
def test_status_fails_with_one_line_when_no_daemon_answers(make_agent, tmp_path, killed):
    if killed:
        make_agent().kill()
    answer = run("status", "--home", tmp_path / "home")
    assert answer.returncode == 1
    assert answer.stderr == (
        f"edgepress-agent: no agent serves {tmp_path}/home; "
        'start one with "edgepress-agent serve" or "edgepress-agent attach"\n'
    )


def test_a_second_daemon_for_the_same_home_is_refused(agent):
    answer = run("serve", "--home", agent.home)
    assert answer.returncode == 1
    process = f"process {agent.process.pid}"
    assert answer.stderr == f"edgepress-agent: another agent ({process}) serves {agent.home} already\n"


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ("litert", '"litert" is not NAME=PYTHON'),
        ("tensorrt=/bin/true", 'unknown runtime "tensorrt"; known: litert, null, tflite_runtime'),
        ("../x=/bin/true", "expected a letter, then letters, digits or underscores"),
        ("litert=/nowhere/python", "/nowhere/python is not a Python that can be run"),
    ],
)
def test_a_wrong_runtime_option_is_a_usage_error(tmp_path, runtime, message):
    answer = run("serve", "--home", tmp_path, "--runtime", runtime)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("quota", ["0", "-1", "1.5", "much", "²", str(1 << 31)])
def test_a_wrong_quota_is_a_usage_error(tmp_path, quota):
    answer = run("serve", "--home", tmp_path, "--quota-mib", quota)
    assert answer.returncode == 2
    assert f'"{quota}" is no number of MiB from 1 to 1073741824' in answer.stderr


def test_a_daemon_that_attach_starts_keeps_to_the_quota_given(detached):
    command = [*AGENT, "attach", "--home", str(detached), *NULL_ONLY, "--quota-mib=3"]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=True)
    pid = (detached / "agent.lock").read_text()
    assert b"--quota-mib=3" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def test_socket_and_home_are_for_their_owner_alone(make_agent, tmp_path):
    (tmp_path / "home").mkdir(mode=0o755)
    agent = make_agent()
    assert stat.S_IMODE(home.socket_path(agent.home).stat().st_mode) == 0o600
    for folder in (agent.home, agent.home / "blobs", agent.home / "jobs"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_home_too_deep_for_a_socket_is_served_all_the_same(make_agent, tmp_path):
    agent = make_agent(tmp_path / ("d" * 120) / "home")
    assert agent.host().hello.home == str(agent.home)
    path = home.socket_path(agent.home)
    assert len(str(path)) < 108
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    agent.kill(signal.SIGTERM)
    assert not path.exists()


def test_a_folder_for_sockets_that_others_can_write_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.getuid", lambda: 4242)
    folder = Path("/tmp/edgepress-4242")
    folder.mkdir(exist_ok=True)
    try:
        with pytest.raises(
            AgentError, match="edgepress-4242 is not a folder of ours alone; remove it, or choose a shor"
        ):
            home.socket_path(tmp_path / ("d" * 120))
    finally:
        folder.rmdir()


def test_a_link_to_a_home_leads_to_the_same_socket(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    assert home.socket_path(tmp_path / "link") == home.socket_path(tmp_path)


def test_sigterm_ends_the_daemon_and_removes_its_socket(agent):
    agent.kill(signal.SIGTERM)
    assert agent.process.returncode == 0
    assert not home.socket_path(agent.home).exists()
    assert "Traceback" not in agent.log()


def test_the_default_home_is_below_the_users_data(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert home.default_home() == Path("/data/edgepress-agent")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert home.default_home() == Path("/home/someone/.local/share/edgepress-agent")


def test_the_version_is_that_of_the_distribution():
    assert run("--version").stdout == f"edgepress-agent {version('edgepress')}\n"


@pytest.mark.parametrize("command", [[], ["serve"], ["attach"], ["status"]])
def test_every_command_and_option_has_help(command):
    answer = run(*command, "--help")
    assert answer.returncode == 0
    assert "--ready-fd" not in answer.stdout
    options = [line.split() for line in answer.stdout.splitlines() if line.startswith("  -")]
    assert all(len(words) > 2 for words in options) or "--runtime NAME=PYTHON\n" in answer.stdout
