"""The whole line through a real sshd on loopback, as a board is reached."""

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from agents import CALM_YAML, stop_agent
from processes import wait_for
from ssh_server import SSHD, SshServer, fingerprint, make_key

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.sshd,
    pytest.mark.skipif(SSHD is None, reason="no OpenSSH server is installed"),
]

AGENT = Path(sys.prefix).parent / "litert" / "bin" / "edgepress-agent"
TWO = "  float32: []\n  int8:\n    - quantization: {mode: int8}\n"


@pytest.fixture
def board(bench, tmp_path):
    """A board to be reached by SSH, known to nobody yet."""
    folder = tmp_path / "sshd"
    folder.mkdir()
    with SshServer(folder, [make_key(folder / "host")], make_key(folder / "user")) as server:
        yield server
    stop_agent(bench.folder / "agent")
    for file in ("known_hosts", "devices/board.yaml"):
        (bench.home / ".config" / "edgepress" / file).unlink(missing_ok=True)


def add(bench, board) -> None:
    added = bench.edgepress(
        "device", "add", "board", "--host", board.host, "--port", board.port, "--user", board.user,
        "--identity-file", board.user_key, "--agent", AGENT, "--home", bench.folder / "agent",
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    with (bench.home / ".config" / "edgepress" / "devices" / "board.yaml").open("a") as file:
        file.write(CALM_YAML)


def test_a_board_is_added_trusted_checked_and_measured(bench, board):
    add(bench, board)
    unknown = bench.edgepress("run", bench.experiment(variants=TWO, device="board"), "--quiet")
    assert unknown.returncode == 1
    assert "edgepress device trust board" in unknown.stderr
    trusted = bench.edgepress("device", "trust", "board", "--yes")
    assert fingerprint(board.host_keys[0]) in trusted.stdout
    checked = bench.edgepress("device", "check", "board")
    assert checked.returncode == 0, checked.stderr
    assert "litert" in checked.stdout
    first = bench.edgepress("run", bench.experiment(variants=TWO, device="board"))
    assert first.returncode == 0, first.stdout + first.stderr
    record = bench.record()
    assert (record["device_name"], record["transport"]) == ("board", "ssh")
    assert all(variant["valid"] for variant in record["variants"])
    again = bench.edgepress("run", bench.experiment(variants=TWO, device="board"))
    assert "nothing to send" in again.stdout


def test_a_device_that_is_down_is_one_message(bench, board):
    add(bench, board)
    board.stop()
    done = bench.edgepress("run", bench.experiment(variants=TWO, device="board"), "--quiet")
    assert done.returncode == 1
    assert "refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_was_killed_while_the_board_measures_picks_its_job_up(bench, board):
    add(bench, board)
    assert bench.edgepress("device", "trust", "board", "--yes").returncode == 0
    path = bench.experiment(variants=TWO, device="board", measure="{processes: 4, warmup_s: 0.2, timing_s: 0.5}")
    running = subprocess.Popen(
        bench.command("run", path), cwd=bench.folder, env=bench.environment, stdout=subprocess.PIPE, text=True
    )
    for line in running.stdout:
        if line.startswith("measure: started"):
            break
    wait_for(lambda: any((bench.folder / "agent" / "jobs").glob("*/files/*.npy")))
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=30)
    killed_utc = datetime.now(UTC)
    again = bench.edgepress("run", path, "--quiet")
    assert again.returncode == 0, again.stdout + again.stderr
    kept = bench.home / ".cache" / "edgepress" / "measurements"
    result = max(kept.glob("*/result.json"), key=lambda file: file.stat().st_mtime_ns)
    assert datetime.fromisoformat(json.loads(result.read_text())["started_utc"]) <= killed_utc
