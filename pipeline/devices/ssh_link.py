"""One SSH connection and the file channel on it: opened when it is needed, and again after it was cut."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import paramiko

from pipeline.devices.handshakes import Handshakes
from pipeline.devices.slow_link import Pace
from pipeline.devices.ssh_config import SshTarget
from pipeline.devices.ssh_connection import connect
from pipeline.errors import DeviceError, DeviceUnreachable

CHANNEL_TIMEOUT_S = 60.0


class SshLink:
    """A connection to one server; nothing is opened before the first call.

    Args:
        target: the server.
        handshakes: what bounds how many are connected to at once.
        compress: whether what goes over it is compressed.
        sftp_command: the command that is an SFTP server there; nothing for the server's own.
    """

    def __init__(
        self, target: SshTarget, handshakes: Handshakes, compress: bool = False, sftp_command: tuple[str, ...] = ()
    ) -> None:
        self._target = target
        self._handshakes = handshakes
        self._compress = compress
        self._sftp_command = sftp_command
        self._stack = ExitStack()
        self._connection: paramiko.Transport | None = None
        self._sftp: paramiko.SFTPClient | None = None
        self.pace = Pace(0.0)

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed since."""
        return self._connection is not None

    def connected(self) -> paramiko.Transport:
        """Return the connection, opened again when it was cut. Raises a DeviceError that says what is wrong."""
        if self._connection is None or not self._connection.is_active():
            self.close()
            begin_s = time.monotonic()
            with ExitStack() as stack:
                self._connection = connect(self._target, stack, self._handshakes, self._compress)
                self._stack = stack.pop_all()
            self.pace = Pace(time.monotonic() - begin_s)
        return self._connection

    @contextmanager
    def files(self, remote: str) -> Iterator[paramiko.SFTPClient]:
        """Give the file channel; what goes wrong meanwhile becomes a DeviceError that names ``remote``."""
        connection = self.connected()
        try:
            if self._sftp is None:
                self._sftp = _open_sftp(connection, self._sftp_command)
            yield self._sftp
        except (paramiko.SSHException, EOFError, OSError) as error:
            sftp, self._sftp = self._sftp, None
            # Of a connection that ends paramiko closes the channels first, and is active a little longer.
            is_cut = not connection.is_active() or (sftp is not None and cast("Any", sftp.get_channel()).closed)
            if isinstance(error, OSError) and not isinstance(error, TimeoutError) and not is_cut:
                raise DeviceError(f"{self._target.title}: {remote}: {error.strerror or error}") from error
            connection.close()
            said = f": {error}" if str(error) else ""
            raise DeviceUnreachable(f"the connection to {self._target.title} was cut{said}") from error
        except BaseException:
            # Answers to what was under way would be taken for answers to the next request.
            self._sftp = None
            raise

    def close(self) -> None:
        """Close the connection and every one below it; safe to call twice."""
        self._connection = self._sftp = None
        self._stack.close()


def _open_sftp(connection: paramiko.Transport, command: tuple[str, ...]) -> paramiko.SFTPClient:
    channel = connection.open_session(timeout=CHANNEL_TIMEOUT_S)
    channel.settimeout(CHANNEL_TIMEOUT_S)
    if command:
        channel.exec_command(shlex.join(command))
    else:
        channel.invoke_subsystem("sftp")
    return paramiko.SFTPClient(channel)
