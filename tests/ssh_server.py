"""A private OpenSSH server on loopback, for tests: its own port, host key and authorized keys."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
START_TIMEOUT_S = 20


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair with ssh-keygen and return the private half's path."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def fingerprint(key: Path) -> str:
    """Return the SHA-256 fingerprint of a key, by ssh-keygen's word."""
    shown = subprocess.run(["ssh-keygen", "-lf", str(key)], check=True, capture_output=True, text=True)
    return shown.stdout.split()[1]


class SshServer:
    """A running sshd that lets the present user in with ``user_key``; one more process at each ``start``.

    ``environment`` is what its sessions have, in place of what sshd would give them.

    ``host`` is the address it listens on; ``prefix`` is a command that runs another, such as in a network namespace.
    """

    max_startups = "100"

    def __init__(
        self,
        folder: Path,
        host_keys: list[Path],
        user_key: Path,
        log: list[str] | None = None,
        host: str = "127.0.0.1",
        prefix: tuple[str, ...] = (),
        **environment: str,
    ) -> None:
        self.folder = folder
        self.host = host
        self.prefix = prefix
        self.host_keys = host_keys
        self.user_key = user_key
        self.environment = environment
        self.user = getpass.getuser()
        self.port = _free_port()
        self.log: list[str] = [] if log is None else log
        self._listening = threading.Event()
        self._daemon: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process that listens."""
        assert self._daemon is not None
        return self._daemon.pid

    @property
    def known_hosts_line(self) -> str:
        """What a known_hosts file says of this server's first key."""
        kind, content = self.host_keys[0].with_name(f"{self.host_keys[0].name}.pub").read_text().split()[:2]
        return f"[{self.host}]:{self.port} {kind} {content}\n"

    def start(self) -> None:
        """Start the server and wait until it listens."""
        if SSHD is None:
            raise RuntimeError("no sshd on this machine; install openssh-server")
        config = self._write_config()
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self._listening.clear()
        self._daemon = subprocess.Popen(
            [*self.prefix, SSHD, "-D", "-e", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read_log, args=(self._daemon,), daemon=True).start()
        if not self._listening.wait(START_TIMEOUT_S):
            self.stop()
            raise RuntimeError("sshd did not start: " + "".join(self.log))

    def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._daemon:
            self.cut_connections()
            self._daemon.terminate()
            self._daemon.wait(10)
            self._daemon = None

    def cut_connections(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Kill the server's side of every connection; return how many. SIGSTOP: it is silent, as behind a dead line."""
        sessions = self._sessions()
        for pid in sessions:
            # It may have ended by itself in the meantime.
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return len(sessions)

    def _sessions(self) -> list[int]:
        if not self._daemon:
            return []
        return [
            int(pid) for pid in Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children").read_text().split()
        ]

    def _read_log(self, daemon: subprocess.Popen[str]) -> None:
        for line in daemon.stderr or ():
            self.log.append(line)
            if line.startswith("Server listening"):
                self._listening.set()

    def _write_config(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        authorized = self.folder / "authorized_keys"
        authorized.write_text(self.user_key.with_name(f"{self.user_key.name}.pub").read_text())
        settings = {
            "Port": self.port,
            "ListenAddress": self.host,
            "PidFile": self.folder / "pid",
            "AuthorizedKeysFile": authorized,
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
            "UseDNS": "no",
            "MaxStartups": self.max_startups,
            "Subsystem": "sftp internal-sftp",
        }
        lines = [f"{key} {value}\n" for key, value in settings.items()]
        lines += [f"HostKey {key}\n" for key in self.host_keys]
        if self.environment:
            lines.append(f"SetEnv {' '.join(f'{name}={value}' for name, value in self.environment.items())}\n")
        config = self.folder / "sshd_config"
        config.write_text("".join(lines))
        return config


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
