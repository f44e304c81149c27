"""What ``push.py`` pushes to: an agent behind a real sshd, over lines of several kinds."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_agent.protocol import blob_path
from pipeline.agent_client import AgentClient, Blob
from pipeline.devices.inventory import Device
from pipeline.devices.ssh import SshTransport
from pipeline.devices.ssh_config import ssh_target

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from agents import stop_agent
from boards import attach
from slow_line import SlowLine
from ssh_server import SshServer, make_key

NAMESPACE = "edgepress-push"
NEAR, FAR = "10.231.77.1", "10.231.77.2"
# Of each packet that arrives on either side, so many per cent are lost.
LOSS = """table inet loss {{
  chain arriving {{
    type filter hook input priority 0
    meta l4proto tcp numgen random mod 100 < {percent} drop
  }}
}}
"""


@dataclass(frozen=True)
class Line:
    """Where the server is reached, and what kind of line that is."""

    host: str
    port: int
    kind: str


class Lab:
    """A folder with keys, an agent's home and a HOME; the server on loopback is shared by all lines but slow ones."""

    def __init__(self, folder: Path, server: SshServer) -> None:
        self.folder = folder
        self.server = server
        self.agent_home = folder / "agent"

    def blob(self, content: bytes) -> Blob:
        """Write content to be pushed."""
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / sha256
        path.write_bytes(content)
        return Blob(sha256, path)

    def forget(self, blob: Blob) -> None:
        """Remove content everywhere."""
        for path in (blob.path, Path(blob_path(str(self.agent_home), blob.sha256)), self.folder / "copy"):
            path.unlink(missing_ok=True)

    def client(self, line: Line) -> AgentClient:
        """Return a client that is not connected yet."""
        known = Path(os.environ["HOME"]) / ".ssh" / "known_hosts"
        kind, key = self.server.host_keys[0].with_name("host.pub").read_text().split()[:2]
        known.write_text(f"[{line.host}]:{line.port} {kind} {key}\n")
        device = Device(
            "bench",
            "ssh",
            host=line.host,
            port=line.port,
            user=self.server.user,
            identity_file=self.server.user_key,
        )
        return AgentClient(SshTransport(ssh_target(device), attach(self.agent_home)), "bench")

    def scp(self, line: Line, path: Path, compress: bool) -> None:
        """Copy a file by scp, whose cipher is OpenSSH's first choice."""
        options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")
        target = f"{self.server.user}@{line.host}:{self.folder / 'copy'}"
        key = str(self.server.user_key)
        more = ("-C",) if compress else ()
        subprocess.run(["scp", "-q", *more, "-P", str(line.port), "-i", key, *options, str(path), target], check=True)

    @contextmanager
    def plain_line(self) -> Iterator[Line]:
        """Give the server as it is."""
        yield Line(self.server.host, self.server.port, "loopback")

    @contextmanager
    def cut(self, line: Line, after: int) -> Iterator[tuple[Line, SlowLine]]:
        """Give a way to a line's far end that is cut once, when so many bytes have gone over it."""
        with SlowLine(line.host, line.port, cut_after=after) as proxy:
            yield Line("127.0.0.1", proxy.port, "a TCP proxy"), proxy

    @contextmanager
    def slow_line(self, bytes_per_s: float, loss_percent: int) -> Iterator[Line]:
        """Give a slow line that loses packets, where this machine lets us make one; otherwise one that is only slow."""
        if os.getuid() == 0 and shutil.which("nft") and shutil.which("ip") and shutil.which("tc"):
            with self._namespace(bytes_per_s, loss_percent) as line:
                yield line
            return
        with SlowLine(self.server.host, self.server.port, bytes_per_s) as proxy:
            yield Line("127.0.0.1", proxy.port, "through a TCP proxy, without loss: that takes root, ip, tc and nft")

    @contextmanager
    def _namespace(self, bytes_per_s: float, loss_percent: int) -> Iterator[Line]:
        inside = ("ip", "netns", "exec", NAMESPACE)
        _run("ip", "netns", "add", NAMESPACE)
        try:
            _make_link(bytes_per_s, loss_percent, inside)
            keys = self.server.host_keys, self.server.user_key
            with SshServer(self.folder / "far", *keys, host=FAR, prefix=inside) as server:
                kind = f"tbf on a veth into a network namespace, nft drops {loss_percent} % of the packets there"
                yield Line(FAR, server.port, kind)
        finally:
            _run("ip", "netns", "del", NAMESPACE)


def noise(size_bytes: int) -> bytes:
    """Return bytes that do not compress, as those of a float32 model."""
    return np.random.default_rng().bytes(size_bytes)


def weights(size_bytes: int) -> bytes:
    """Return int8 weights of which half are zero, as those of a pruned model."""
    random = np.random.default_rng()
    values = np.clip(random.normal(0, 30, size_bytes), -127, 127).astype(np.int8)
    values[random.random(size_bytes) < 0.5] = 0
    return values.tobytes()


@contextmanager
def lab_here() -> Iterator[Lab]:
    """Give a lab in a folder of its own, with an agent that runs already."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "home" / ".ssh").mkdir(parents=True, mode=0o700)
        os.environ["HOME"] = str(folder / "home")
        os.environ.pop("SSH_AUTH_SOCK", None)
        keys = [make_key(folder / "host")], make_key(folder / "user")
        # A bare HOME there too: what a user's shell does when it starts is not what is to be measured.
        with SshServer(folder / "sshd", *keys, HOME=str(folder / "home")) as server:
            lab = Lab(folder, server)
            with lab.plain_line() as line, lab.client(line) as client:
                assert client.hello
            try:
                yield lab
            finally:
                stop_agent(lab.agent_home)


def _make_link(bytes_per_s: float, loss_percent: int, inside: tuple[str, ...]) -> None:
    rate = f"{round(bytes_per_s * 8)}bit"
    _run("ip", "link", "add", "edgepress0", "type", "veth", "peer", "name", "edgepress1", "netns", NAMESPACE)
    _run("ip", "addr", "add", f"{NEAR}/30", "dev", "edgepress0")
    _run("ip", "link", "set", "edgepress0", "up")
    _run(*inside, "ip", "addr", "add", f"{FAR}/30", "dev", "edgepress1")
    _run(*inside, "ip", "link", "set", "edgepress1", "up")
    shape = ("root", "tbf", "rate", rate, "burst", "32kb", "latency", "100ms")
    _run("tc", "qdisc", "add", "dev", "edgepress0", *shape)
    _run(*inside, "tc", "qdisc", "add", "dev", "edgepress1", *shape)
    subprocess.run([*inside, "nft", "-f", "-"], input=LOSS.format(percent=loss_percent), text=True, check=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
