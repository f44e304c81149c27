"""One run on so many boards, in a process that does nothing else: ``python fleet_lab.py FOLDER BOARDS SECONDS``.

Ends with a line of JSON: wall time, processor seconds of this process, of the agents and of sshd, and this process's
largest resident set.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.agent_client import AgentClient
from pipeline.cache import Cache
from pipeline.devices.handshakes import Handshakes
from pipeline.devices.inventory import find_device
from pipeline.devices.transport import open_transport
from pipeline.experiment import Options, run_experiment
from pipeline.reporting.progress import NoProgress

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from agents import stop_agent
from null_fleet import null_build, null_experiment, write_board
from ssh_server import SshServer, make_key

# An invoke sleeps: the time of a board is not the time of the machine that stands for all of them.
VARIANTS = {"float32": {"sleep_us": 2000}, "small": {"sleep_us": 1000}}


def main(folder: Path, boards: int, block_s: float) -> None:
    """Start the boards, do the run and print what it took."""
    names = _environment(folder, boards)
    with SshServer(folder / "sshd", [make_key(folder / "host")], make_key(folder / "user")) as server:
        server.stop()
        server.max_startups = "10:30:100"  # what a board's sshd has by default
        server.start()
        (folder / "home" / ".ssh" / "known_hosts").write_text(server.known_hosts_line)
        for name in names:
            write_board(folder / "devices", name, server, folder / "agents" / name)
        try:
            _start_agents(names)
            print(json.dumps(_measured(folder, names, server, block_s)))
        finally:
            for name in names:
                stop_agent(folder / "agents" / name)


def _environment(folder: Path, boards: int) -> list[str]:
    (folder / "home" / ".ssh").mkdir(parents=True, mode=0o700)
    (folder / "devices").mkdir()
    os.environ |= {"HOME": str(folder / "home"), "EDGEPRESS_DEVICES": str(folder / "devices")}
    for name in ("SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)
    return [f"board-{number:02}" for number in range(boards)]


def _start_agents(names: list[str]) -> None:
    """Have all agents up before the run: on real boards, each would start on its own processor."""
    handshakes = Handshakes()

    def start(name: str) -> None:
        with AgentClient(open_transport(find_device(name), handshakes), name) as client:
            assert client.hello

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(start, names))


def _measured(folder: Path, names: list[str], server: SshServer, block_s: float) -> dict[str, float]:
    measure = f"{{processes: 5, warmup_s: {block_s / 2}, timing_s: {block_s}}}"
    experiment = null_experiment(folder, measure=measure)
    options = Options(folder / "runs", Cache(folder / "cache"), devices=tuple(names))
    agents = [int((folder / "agents" / name / "agent.lock").read_text()) for name in names]
    before = time.process_time(), sum(map(_processor_s, agents)), _processor_s(server.pid), time.monotonic()
    run = run_experiment(experiment, options, NoProgress(), null_build(folder, VARIANTS))
    took_s = time.monotonic() - before[3]
    if not run.measured:
        raise SystemExit(f"not every board was measured: {run.folder}")
    return {
        "wall_s": took_s,
        "host_s": time.process_time() - before[0],
        "agents_s": sum(map(_processor_s, agents)) - before[1],
        "sshd_s": _processor_s(server.pid) - before[2],
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _processor_s(process: int) -> float:
    """Return the processor time of a process and of its children that have ended, proc(5): fields 14 to 17."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
