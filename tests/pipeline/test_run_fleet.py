"""Several boards through the real command line: exit codes, lines, the report, Ctrl-C and what resumes it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from agents import stop_agent
from null_fleet import write_board
from processes import heed_ctrl_c
from ssh_server import SSHD, SshServer, make_key

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.sshd,
    pytest.mark.skipif(SSHD is None, reason="no OpenSSH server is installed"),
]

LITERT_ONLY = '#!/bin/sh\nexec {agent} "$@" --runtime=tflite_runtime=/bin/false\n'


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder of device files for the boards of one server, and how to add one."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "devices").mkdir()
    agent = folder / "litert-agent"
    agent.write_text(LITERT_ONLY.format(agent=Path(sys.prefix).parent / "litert" / "bin" / "edgepress-agent"))
    agent.chmod(0o755)
    with SshServer(folder / "sshd", [make_key(folder / "host")], make_key(folder / "user")) as server:

        def add(name: str, **more: object) -> None:
            write_board(folder / "devices", name, server, folder / name, **{"agent": agent, "tags": "[lab]", **more})

        yield add, folder, server
    for home in folder.glob("pi-*"):
        stop_agent(home)


@pytest.fixture
def run(bench, lab):
    """A function that starts "edgepress run" on these boards."""
    _, folder, server = lab
    (bench.home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    (bench.home / ".ssh" / "known_hosts").write_text(server.known_hosts_line)
    environment = {**bench.environment, "EDGEPRESS_DEVICES": str(folder / "devices")}

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            bench.command("run", *arguments),
            preexec_fn=heed_ctrl_c,
            cwd=bench.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def ended(running: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = running.communicate(timeout=240)
    assert "Traceback" not in err
    return running.returncode, out + err


def newest(bench) -> tuple[Path, dict]:
    folder = max((bench.folder / "runs").iterdir())
    return folder, json.loads((folder / "fleet.json").read_text())


def test_a_board_that_is_down_is_exit_code_1_and_when_the_rest_is_done_a_budget_missed_is_exit_code_3(bench, lab, run):
    add, _, server = lab
    add("pi-a")
    add("pi-b", port=1)
    quick = "{processes: 1, warmup_s: 0, timing_s: 0}"
    path = bench.experiment("ready.tflite", measure=quick, devices="[tag:lab]", budget="{size_kib: 0.5}")
    code, said = ended(run(path))
    assert code == 1
    folder, record = newest(bench)
    assert [(o["device"], o["done"]) for o in record["devices"]] == [("pi-a", True), ("pi-b", False)]
    lines = said.splitlines()
    assert any(line.startswith("pi-a: done: no variant meets the budget: float32 comes closest") for line in lines)
    assert any(line.startswith("pi-b: failed: pi-b (") and "connection refused" in line for line in lines)
    assert lines[-1] == f"the rest: edgepress run {path} --resume runs/{folder.name}"
    add("pi-b", port=server.port)
    code, said = ended(run(path, "--resume", folder.name, "--quiet"))
    assert code == 3
    _, record = newest(bench)
    assert [(o["done"], o["taken_over"]) for o in record["devices"]] == [(True, True), (True, False)]
    assert "no variant may ship on all 2 devices" in " ".join(said.split())
    assert "the rest" not in said


def test_ctrl_c_ends_all_boards_with_one_line_and_no_traceback(bench, lab, run):
    add, *_ = lab
    add("pi-a")
    add("pi-b")
    path = bench.experiment("ready.tflite", measure="{processes: 3, warmup_s: 1, timing_s: 2}")
    running = run(path, "--device", "tag:lab")
    for line in running.stdout:
        if ": push: " in line:
            break
    running.send_signal(signal.SIGINT)
    code, said = ended(running)
    assert code == 130
    assert "interrupted; what was finished is kept: run the same command again to go on" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--device", "tag:labs"), 'no device has the tag "labs"; known tags: lab'),
        (("--resume", "nothing"), 'unknown run "nothing"; runs on several devices in runs: none'),
    ],
)
def test_what_is_not_there_is_exit_code_2(bench, lab, run, arguments, said):
    lab[0]("pi-a")
    code, text = ended(run(bench.experiment("ready.tflite"), *arguments))
    assert (code, said in text) == (2, True)
