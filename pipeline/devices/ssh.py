"""The transport to a board over SSH: the agent and other commands on exec channels, files by SFTP, one connection."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import paramiko

from pipeline.devices.agent_stream import KEPT_STDERR_BYTES, LineBuffer, stream_ended
from pipeline.devices.handshakes import Handshakes
from pipeline.devices.inventory import Device
from pipeline.devices.sftp import download, upload
from pipeline.devices.ssh_command import Ended, Patience, talk
from pipeline.devices.ssh_config import SshTarget, ssh_target
from pipeline.devices.ssh_link import CHANNEL_TIMEOUT_S, SshLink
from pipeline.devices.transport import Progress
from pipeline.errors import DeviceError, DeviceUnreachable

PROBE_TIMEOUT_S = 15.0


def ssh_transport(device: Device, handshakes: Handshakes | None = None, start: bool = True) -> SshTransport:
    """Return the transport for ``device``, with ``~/.ssh/config`` applied; it connects within ``handshakes``.

    With ``start`` False it starts no agent.
    """
    return SshTransport(ssh_target(device), attach_command(device, start), handshakes, sftp_command(device))


def attach_command(device: Device, start: bool = True) -> tuple[str, ...]:
    """Return the command that reaches the agent at the far end, word by word."""
    home = ("--home", device.home) if device.home else ()
    # What belongs to another user is started by the system, not by us.
    no_start = ("--no-start",) if device.as_user or not start else ()
    return (*_agent_words(device), "attach", *home, *no_start)


def sftp_command(device: Device) -> tuple[str, ...]:
    """Return the command that is an SFTP server with the rights of the agent; nothing where those are our own."""
    return (*_agent_words(device), "sftp") if device.as_user else ()


def become(user: str, login: str) -> tuple[str, ...]:
    """Return the words before a command that is to run as ``user``, for one who is logged in as ``login``."""
    return ("runuser", "-u", user, "--") if login == "root" else ("sudo", "-n", "-u", user, "--")


def _agent_words(device: Device) -> tuple[str, ...]:
    # The login shell starts in the user's home; a quoted "~" would not be expanded.
    agent = f"./{device.agent[2:]}" if device.agent.startswith("~/") else device.agent
    return (*(become(device.as_user, ssh_target(device).user) if device.as_user else ()), agent)


class SshTransport:
    """One SSH connection, opened at the first call and again after it was cut.

    Where the link is slow and compression pays, files get a connection of their own that compresses.
    """

    def __init__(
        self,
        target: SshTarget,
        command: tuple[str, ...],
        handshakes: Handshakes | None = None,
        sftp_command: tuple[str, ...] = (),
    ) -> None:
        self._target = target
        self._command = command
        bound = handshakes or Handshakes()
        self._link = SshLink(target, bound, sftp_command=sftp_command)
        self._compressing = SshLink(target, bound, compress=True, sftp_command=sftp_command)
        self._may_compress = True

    def open_stream(self) -> SshStream:
        """Start the agent's ``attach`` at the far end; see ``Transport``."""
        connection = self._link.connected()
        try:
            channel = connection.open_session(timeout=CHANNEL_TIMEOUT_S)
            channel.settimeout(CHANNEL_TIMEOUT_S)
            channel.exec_command(shlex.join(self._command))
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise DeviceUnreachable(f"{self._target.title} refuses to run the agent: {error}") from error
        return SshStream(self._target, connection, channel)

    def run(
        self,
        command: tuple[str, ...],
        stdin: bytes,
        patience: Patience,
        on_line: Callable[[bytes], None] | None = None,
    ) -> Ended:
        """Run a command at the far end, to which ``stdin`` is sent, and return what came of it.

        Args:
            command: its words; the far end's shell gets them quoted.
            stdin: what it reads.
            patience: how long it may be silent, and how long it may take.
            on_line: called with each line of its output as soon as that is there.

        Raises:
            DeviceUnreachable: if the connection is cut, or the command silent for too long, too long or too talkative.
        """
        connection = self._link.connected()
        try:
            with connection.open_session(timeout=CHANNEL_TIMEOUT_S) as channel:
                channel.settimeout(CHANNEL_TIMEOUT_S)
                channel.exec_command(shlex.join(command))
                return talk(channel, stdin, patience, on_line)
        except (paramiko.SSHException, EOFError, OSError) as error:
            connection.close()
            said = f": {error}" if str(error) else ""
            raise DeviceUnreachable(f"{self._target.title}: {command[0]} was cut short{said}") from error

    def put_file(self, local: Path, remote: str, offset: int, progress: Progress) -> None:
        """Send a file by SFTP, its rest compressed where that pays; see ``Transport``."""
        reached = self._put(local, remote, offset, progress)
        if reached < local.stat().st_size:
            self._open_compressing()
            self._put(local, remote, reached, progress)

    def get_file(self, remote: str, local: Path, size_bytes: int, progress: Progress) -> None:
        """Fetch a file by SFTP; see ``Transport``."""
        with self._for_files.files(remote) as sftp:
            download(sftp, self._target.title, remote, local, size_bytes, progress)

    def close(self) -> None:
        """Close the connections and every one below them."""
        self._compressing.close()
        self._link.close()

    @property
    def _for_files(self) -> SshLink:
        return self._compressing if self._compressing.is_open else self._link

    def _put(self, local: Path, remote: str, offset: int, progress: Progress) -> int:
        """Send a file, or as much of it as shows that the rest should be compressed; return how much is there."""
        link = self._for_files
        with link.files(remote) as sftp:
            pace, may_stop = link.pace, link is self._link and self._may_compress
            pace.begin()

            def note(size_bytes: int) -> None:
                pace.note(size_bytes)
                progress(size_bytes)

            def enough(position: int) -> bool:
                return may_stop and pace.compression_pays(local, position)

            return upload(sftp, self._target.title, local, remote, offset, note, enough)

    def _open_compressing(self) -> None:
        try:
            self._compressing.connected()
        except DeviceError:
            # The server may let nobody in twice; the first connection does as well.
            self._may_compress = False


class SshStream:
    """The agent's standard input and output over an exec channel."""

    def __init__(self, target: SshTarget, connection: paramiko.Transport, channel: paramiko.Channel) -> None:
        self._target = target
        self._connection = connection
        self._channel = channel
        self._lines = LineBuffer(target.title)
        self._spoke = False
        self._stderr = b""
        self._interrupted = False

    def write_line(self, line: bytes) -> None:
        """Send one line; see ``AgentStream``."""
        self._channel.settimeout(CHANNEL_TIMEOUT_S)
        try:
            self._channel.sendall(line)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._ended() from error

    def read_line(self, timeout_s: float | None) -> bytes:
        """Return one line; see ``AgentStream``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (line := self._lines.take_line()) is None:
            self._receive(deadline)
        self._spoke = True
        return line

    def close(self) -> None:
        """End the channel; the connection stays."""
        # paramiko may not have noticed yet that all is cut.
        with suppress(paramiko.SSHException, EOFError, OSError):
            self._channel.close()

    def interrupt(self) -> None:
        """Wake who waits for a line; see ``AgentStream``."""
        self._interrupted = True
        with suppress(paramiko.SSHException, EOFError, OSError):  # it may have been closed meanwhile
            self._channel.close()

    def _receive(self, deadline: float | None) -> None:
        """Take what arrives within a keepalive's time; when nothing does, see whether the far end lives."""
        left = self._target.keepalive_s if deadline is None else deadline - time.monotonic()
        self._channel.settimeout(max(0.0, min(left, self._target.keepalive_s)))
        try:
            chunk = self._channel.recv(1 << 16)
        except TimeoutError:
            if deadline is not None and time.monotonic() >= deadline:
                raise DeviceUnreachable(f"the agent on {self._target.title} does not answer") from None
            self._probe()
            return
        self._keep_stderr()
        if not chunk:
            raise self._ended()
        self._lines.feed(chunk)

    def _probe(self) -> None:
        """Ask the far end for any sign of life: paramiko's own keepalive waits for no answer."""
        try:
            self._connection.open_session(timeout=PROBE_TIMEOUT_S).close()
        except paramiko.ChannelException:
            return
        except (paramiko.SSHException, EOFError, OSError) as error:
            self._connection.close()
            silence = f"for {self._target.keepalive_s + PROBE_TIMEOUT_S:g} s"
            raise DeviceUnreachable(f"{self._target.title} gives no sign of life {silence}") from error

    def _keep_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            self._stderr = (self._stderr + self._channel.recv_stderr(1 << 16))[-KEPT_STDERR_BYTES:]

    def _ended(self) -> DeviceUnreachable:
        # The exit status comes behind the end of the output.
        self._channel.status_event.wait(5)
        self._keep_stderr()
        status: int | None = self._channel.exit_status
        if status == -1 and not self._interrupted:
            # paramiko may take a while to notice that all is cut; the next call must not try this connection again.
            self._connection.close()
        ended = None if status == -1 else status
        remedy = f'run "edgepress device provision {self._target.device}"'
        return stream_ended(self._target.title, self._spoke, ended, self._stderr, remedy)
