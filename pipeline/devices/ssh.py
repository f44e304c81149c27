"""The transport to a board over SSH: the agent on an exec channel, files by SFTP, both on one connection."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import paramiko

from pipeline.devices.agent_stream import KEPT_STDERR_BYTES, LineBuffer, stream_ended
from pipeline.devices.inventory import Device
from pipeline.devices.sftp import download, upload
from pipeline.devices.ssh_config import SshTarget, ssh_target
from pipeline.devices.ssh_connection import connect
from pipeline.devices.transport import Progress
from pipeline.errors import DeviceError, DeviceUnreachable

CHANNEL_TIMEOUT_S = 60.0
PROBE_TIMEOUT_S = 15.0


def ssh_transport(device: Device) -> SshTransport:
    """Return the transport for ``device``, with ``~/.ssh/config`` applied."""
    return SshTransport(ssh_target(device), attach_command(device))


def attach_command(device: Device) -> tuple[str, ...]:
    """Return the command that reaches the agent at the far end, word by word."""
    # The login shell starts in the user's home; a quoted "~" would not be expanded.
    agent = f"./{device.agent[2:]}" if device.agent.startswith("~/") else device.agent
    return (agent, "attach", *(("--home", device.home) if device.home else ()))


class SshTransport:
    """One SSH connection, opened at the first call and again after it was cut."""

    def __init__(self, target: SshTarget, command: tuple[str, ...]) -> None:
        self._target = target
        self._command = command
        self._stack = ExitStack()
        self._connection: paramiko.Transport | None = None
        self._sftp: paramiko.SFTPClient | None = None

    def open_stream(self) -> SshStream:
        """Start the agent's ``attach`` at the far end; see ``Transport``."""
        connection = self._connected()
        try:
            channel = connection.open_session(timeout=CHANNEL_TIMEOUT_S)
            channel.settimeout(CHANNEL_TIMEOUT_S)
            channel.exec_command(shlex.join(self._command))
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise DeviceUnreachable(f"{self._target.title} refuses to run the agent: {error}") from error
        return SshStream(self._target, connection, channel)

    def put_file(self, local: Path, remote: str, offset: int, progress: Progress) -> None:
        """Send a file by SFTP; see ``Transport``."""
        with self._file_channel(remote) as sftp:
            upload(sftp, self._target.title, local, remote, offset, progress)

    def get_file(self, remote: str, local: Path, size_bytes: int, progress: Progress) -> None:
        """Fetch a file by SFTP; see ``Transport``."""
        with self._file_channel(remote) as sftp:
            download(sftp, self._target.title, remote, local, size_bytes, progress)

    def close(self) -> None:
        """Close the connection and every one below it."""
        self._connection = self._sftp = None
        self._stack.close()

    def _connected(self) -> paramiko.Transport:
        if self._connection is None or not self._connection.is_active():
            self.close()
            with ExitStack() as stack:
                self._connection = connect(self._target, stack)
                self._stack = stack.pop_all()
        return self._connection

    @contextmanager
    def _file_channel(self, remote: str) -> Iterator[paramiko.SFTPClient]:
        connection = self._connected()
        try:
            if self._sftp is None:
                self._sftp = _open_sftp(connection)
            yield self._sftp
        except (paramiko.SSHException, EOFError, OSError) as error:
            self._sftp = None
            if isinstance(error, OSError) and not isinstance(error, TimeoutError) and connection.is_active():
                raise DeviceError(f"{self._target.title}: {remote}: {error.strerror or error}") from error
            connection.close()
            said = f": {error}" if str(error) else ""
            raise DeviceUnreachable(f"the connection to {self._target.title} was cut{said}") from error
        except BaseException:
            # Answers to what was under way would be taken for answers to the next request.
            self._sftp = None
            raise


class SshStream:
    """The agent's standard input and output over an exec channel."""

    def __init__(self, target: SshTarget, connection: paramiko.Transport, channel: paramiko.Channel) -> None:
        self._target = target
        self._connection = connection
        self._channel = channel
        self._lines = LineBuffer(target.title)
        self._spoke = False
        self._stderr = b""

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
        """End the channel; the connection stays, unless it is gone already."""
        with suppress(paramiko.SSHException, EOFError, OSError):
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
        if status == -1:
            # paramiko may take a while to notice that all is cut; the next call must not try this connection again.
            status = None
            self._connection.close()
        return stream_ended(self._target.title, self._spoke, status, self._stderr)


def _open_sftp(connection: paramiko.Transport) -> paramiko.SFTPClient:
    sftp = paramiko.SFTPClient.from_transport(connection)
    if sftp is None:
        raise paramiko.SSHException("no SFTP channel")
    channel = sftp.get_channel()
    if channel:
        channel.settimeout(CHANNEL_TIMEOUT_S)
    return sftp
