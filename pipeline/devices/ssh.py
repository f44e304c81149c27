"""The transport to a board over SSH: the agent and other commands on exec channels, files by SFTP, one connection."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import paramiko

from pipeline.devices.agent_stream import KEPT_STDERR_BYTES, LineBuffer, stream_ended
from pipeline.devices.inventory import Device
from pipeline.devices.sftp import download, upload
from pipeline.devices.ssh_command import Ended, read_to_end
from pipeline.devices.ssh_config import SshTarget, ssh_target
from pipeline.devices.ssh_connection import connect
from pipeline.devices.transport import Progress
from pipeline.errors import DeviceError, DeviceUnreachable

CHANNEL_TIMEOUT_S = 60.0
PROBE_TIMEOUT_S = 15.0


def ssh_transport(device: Device, start: bool = True) -> SshTransport:
    """Return the transport for ``device``, with ``~/.ssh/config`` applied; unless ``start``, it starts no agent."""
    return SshTransport(ssh_target(device), attach_command(device, start), sftp_command(device))


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
    """One SSH connection, opened at the first call and again after it was cut."""

    def __init__(self, target: SshTarget, command: tuple[str, ...], sftp_command: tuple[str, ...] = ()) -> None:
        self._target = target
        self._command = command
        self._sftp_command = sftp_command
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

    def run(
        self, command: tuple[str, ...], stdin: bytes, timeout_s: float, on_line: Callable[[bytes], None] | None = None
    ) -> Ended:
        """Run a command at the far end, to which ``stdin`` is sent, and return what came of it.

        Args:
            command: its words; the far end's shell gets them quoted.
            stdin: what it reads.
            timeout_s: how long it may be silent.
            on_line: called with each line of its output as soon as that is there.

        Raises:
            DeviceUnreachable: if the connection is cut or the command silent for too long.
        """
        connection = self._connected()
        try:
            with connection.open_session(timeout=CHANNEL_TIMEOUT_S) as channel:
                channel.settimeout(timeout_s)
                channel.exec_command(shlex.join(command))
                channel.sendall(stdin)
                channel.shutdown_write()
                return read_to_end(channel, on_line)
        except (paramiko.SSHException, EOFError, OSError) as error:
            connection.close()
            said = f": {error}" if str(error) else ""
            raise DeviceUnreachable(f"{self._target.title}: {command[0]} was cut short{said}") from error

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
                self._sftp = _open_sftp(connection, self._sftp_command)
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
        """End the channel; the connection stays."""
        # paramiko may not have noticed yet that all is cut.
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
        remedy = f'run "edgepress device provision {self._target.device}"'
        return stream_ended(self._target.title, self._spoke, status, self._stderr, remedy)


def _open_sftp(connection: paramiko.Transport, command: tuple[str, ...]) -> paramiko.SFTPClient:
    channel = connection.open_session(timeout=CHANNEL_TIMEOUT_S)
    channel.settimeout(CHANNEL_TIMEOUT_S)
    if command:
        channel.exec_command(shlex.join(command))
    else:
        channel.invoke_subsystem("sftp")
    return paramiko.SFTPClient(channel)
