"""One block in a child process: ``python -m device_agent.worker REQUEST.json RESULT.json``.

It runs in its runtime's own Python, in a session of its own, and ends with the daemon that started it. numpy and the
runtime are only imported once the limits stand.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from pathlib import Path

from device_agent.blocks import Outcome, Request, outcome_to_bytes
from device_agent.files import disk_full, is_disk_full, write_file
from device_agent.protocol import Failure, LimitSpec, from_json

# What the daemon reads when not even the failure could be written (EX_IOERR of sysexits.h).
EXIT_DISK_FULL = 74

_PR_SET_PDEATHSIG = 1

# Each has a run(request), which returns the outcome and the job's files by name.
_STAGES = {
    "timing": "device_agent.timing",
    "scoring": "device_agent.scoring",
    "profile": "device_agent.profiling",
    "power": "device_agent.energy",
    "sustained": "device_agent.sustained",
}


def main() -> int:
    """Do what the request says and write what came of it."""
    request_path, result_path = sys.argv[1:]
    request = from_json(Request, json.loads(Path(request_path).read_bytes()))
    _die_with_the_daemon(request.daemon_pid)
    _limit(request.spec.limits, request.extra_cpu_s)
    try:
        write_file(Path(result_path), outcome_to_bytes(_outcome(request)))
    except OSError as error:
        print(error, file=sys.stderr)
        return EXIT_DISK_FULL if is_disk_full(error) else 1
    return 0


def _die_with_the_daemon(daemon_pid: int) -> None:
    # A daemon that was killed starts the block anew: two of them would disturb each other's times.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != daemon_pid:
        sys.exit("the daemon is gone")


def _limit(limits: LimitSpec, extra_cpu_s: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory_mib:
        # Not RLIMIT_AS: mapped libraries and data would count, which the kernel can take back at any time.
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_mib << 20, limits.memory_mib << 20))
    if limits.cpu_s:
        # Above the soft limit comes SIGXCPU, which says more than the SIGKILL above the hard one.
        cpu_s = limits.cpu_s + extra_cpu_s
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))


def _outcome(request: Request) -> Outcome:
    name = request.spec.models[request.block.model].name
    limit = request.spec.limits.memory_mib
    try:
        from device_agent.session import BlockFailed
    except ImportError as error:
        # What the loader of shared libraries says when the kernel refuses it memory.
        if limit and "failed to map segment" in str(error):
            return _out_of_memory(name, limit)
        return Failure(name, "runtime", f"{sys.executable}: {_one_line(error)}")
    try:
        return _measure(request)
    except BlockFailed as error:
        return _disk_full(request) if error.kind == "disk" else Failure(name, error.kind, _one_line(error))
    except MemoryError:
        return _out_of_memory(name, limit)
    except OSError as error:
        if is_disk_full(error):
            return _disk_full(request)
        raise


def _out_of_memory(name: str, limit_mib: int) -> Failure:
    needed = f"more memory was needed than the limit of {limit_mib} MiB" if limit_mib else "no memory left"
    return Failure(name, "memory", needed)


def _disk_full(request: Request) -> Failure:
    return Failure(request.spec.models[request.block.model].name, "disk", str(disk_full(Path(request.home))))


def _measure(request: Request) -> Outcome:
    """Run the block's stage and write what it leaves for the host."""
    stage = importlib.import_module(_STAGES[request.block.stage])
    outcome: Outcome
    outcome, files = stage.run(request)
    for name, content in files.items():
        write_file(request.file_path(name), content)
    return outcome


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


if __name__ == "__main__":
    sys.exit(main())
