"""Agents to talk to: the real one, quick to start; and a peer that speaks the protocol from a script of answers."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path

from device_agent.protocol import ConditionSpec

AGENT = Path(sys.prefix).parent / "litert" / "bin" / "edgepress-agent"
# Only the stand-in runtime is needed; asking the others takes a second.
NULL_ONLY = ("--runtime=litert=/bin/false", "--runtime=tflite_runtime=/bin/false")

# Tests run side by side: what one does would disturb the blocks of another, which are then taken again after a pause.
CALM = ConditionSpec(max_temperature_c=None, max_other_cpus=None)
CALM_YAML = "conditions: {max_temperature_c: null, max_other_cpus: null}\n"

HELLO = {
    "protocol": 2,
    "agent_version": "0.1",
    "home": "/nonexistent",
    "free_bytes": 1 << 30,
    "device": {
        "model": None, "machine": "armv7l", "cores": 4, "ram_bytes": None, "os": None, "kernel": "6", "python": "3.9",
    },
    "runtimes": [],
}  # fmt: skip

_PEER = """#!{python} -S
import json, pathlib, sys
lines = json.loads({lines!r})
count = pathlib.Path(sys.argv[0] + ".connections")
earlier = len(count.read_bytes()) if count.exists() else 0
count.write_bytes(bytes(earlier + 1))
def say(text):
    sys.stdout.write(text)
    sys.stdout.flush()
say(lines.pop("hello"))
for line in sys.stdin:
    request = json.loads(line)
    answer = lines[request["method"]]
    if isinstance(answer, list):
        answer = answer[min(earlier, len(answer) - 1)]
    if answer is None:
        sys.exit(0)
    say(answer.replace("$ID", str(request["id"])))
"""


def write_agent(folder: Path) -> Path:
    """Return a command that is the real agent, without the runtimes that are slow to ask."""
    return _executable(
        folder / "quick-agent", f'#!/bin/sh\nexec {shlex.quote(str(AGENT))} "$@" {shlex.join(NULL_ONLY)}\n'
    )


def write_peer(folder: Path, hello: str | None = None, **answers: object) -> Path:
    """Return a command that speaks as an agent.

    Args:
        folder: where it is written.
        hello: its first words, when they are to be other than ``HELLO``.
        answers: by method, with ``_`` for the dot: the result; as a str, the very line, in which ``$ID`` is the
            request's id; None to hang up; a tuple of these by connection.
    """
    greeting = json.dumps({"jsonrpc": "2.0", "method": "hello", "params": HELLO}) + "\n"
    lines = {method.replace("_", "."): _line(answer) for method, answer in answers.items()}
    lines["hello"] = greeting if hello is None else hello
    return _executable(folder / "peer", _PEER.format(python=sys.executable, lines=json.dumps(lines)))


def hello_line(**changes: object) -> str:
    """Return a hello that differs from ``HELLO``."""
    return json.dumps({"jsonrpc": "2.0", "method": "hello", "params": {**HELLO, **changes}}) + "\n"


def stop_agent(home: Path) -> None:
    """End the daemon that serves ``home``, if one does."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int((home / "agent.lock").read_text()), signal.SIGTERM)


def _line(answer: object) -> object:
    if isinstance(answer, tuple):
        return [_line(each) for each in answer]
    if answer is None or isinstance(answer, str):
        return answer
    return json.dumps({"jsonrpc": "2.0", "id": "$ID", "result": answer}).replace('"$ID"', "$ID") + "\n"


def _executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path
