"""What the agent is doing, for a person at a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from device_agent.errors import AgentError
from device_agent.protocol import MAX_MESSAGE_BYTES, Hello, Lease, RuntimeInfo, decode, encode, from_json
from device_agent.reaching import connect


def show(home: Path) -> int:
    """Print the state of the daemon that serves ``home``.

    Raises:
        AgentError: if there is none.
    """
    connected = connect(home)
    if not connected:
        raise AgentError(f'no agent serves {home}; start one with "edgepress-agent serve" or "edgepress-agent attach"')
    with connected, connected.makefile("rb") as stream:
        hello = from_json(Hello, decode(stream.readline(MAX_MESSAGE_BYTES))["params"])
        connected.sendall(encode({"jsonrpc": "2.0", "id": 1, "method": "status"}))
        status = decode(stream.readline(MAX_MESSAGE_BYTES))["result"]
    lease = from_json(Lease, status["lease"]) if status["lease"] else None
    print("\n".join(_lines(hello, lease, status["jobs"])))
    return 0


def _lines(hello: Hello, lease: Lease | None, jobs: list[dict[str, Any]]) -> list[str]:
    device = hello.device
    memory = f"{device.ram_bytes / 2**30:.1f} GiB RAM" if device.ram_bytes else "RAM unknown"
    return [
        f"edgepress-agent {hello.agent_version}, protocol {hello.protocol}",
        f"home      {hello.home}, {hello.free_bytes / 2**30:.1f} GiB free",
        f"device    {device.model or 'unknown'}, {device.machine}, {device.cores} cores, {memory}",
        f"system    {device.os or 'unknown'}, kernel {device.kernel}, Python {device.python}",
        *(f"runtime   {_runtime(runtime)}" for runtime in hello.runtimes),
        f"lease     {_lease(lease)}",
        *(f"job       {_job(job)}" for job in jobs),
        *(["job       none"] if not jobs else []),
    ]


def _runtime(runtime: RuntimeInfo) -> str:
    return f"{runtime.name} {runtime.version or 'not usable: ' + str(runtime.problem)}"


def _lease(lease: Lease | None) -> str:
    if lease is None:
        return "none"
    free = "once its job has ended" if lease.expires_in_s is None else f"in {lease.expires_in_s:.0f} s unless renewed"
    return f"{lease.holder} since {lease.since_utc}, falls free {free}"


def _job(job: dict[str, Any]) -> str:
    holder = f", of {job['holder']}" if job["holder"] else ""
    return f"{job['job_id']} {job['state']:9} {job['name']}{holder}"
