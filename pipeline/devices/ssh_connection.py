"""From an SshTarget to an SSH connection that is verified, logged in and kept alive."""

from __future__ import annotations

import logging
import shlex
import socket
import subprocess
from contextlib import ExitStack, suppress

import paramiko

from pipeline.devices.handshakes import Handshakes
from pipeline.devices.host_keys import check_host_key, known_keys, preferred_algorithms
from pipeline.devices.ssh_config import SshTarget
from pipeline.devices.ssh_login import log_in
from pipeline.errors import DeviceUnreachable

AUTH_TIMEOUT_S = 30.0
# They need no hash beside the cipher; paramiko would ask for them last.
FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")


class _Connection(paramiko.Transport):
    """A transport that closes in silence when the jump host that carries it was cut before."""

    def close(self) -> None:
        with suppress(paramiko.SSHException, EOFError, OSError):
            super().close()


def connect(target: SshTarget, stack: ExitStack, handshakes: Handshakes, compress: bool = False) -> paramiko.Transport:
    """Return a connection to ``target`` on which channels can be opened; ``stack`` closes it and all below it.

    With ``compress`` what goes over it is compressed, where the server takes that; not on the way to a jump host.

    Raises:
        DeviceUnreachable: if it, or a host on the way, does not answer.
        HostKeyRefused: if its key, or that of a host on the way, is not the known one. Nothing was sent to it then.
        AuthenticationRefused: if it accepts none of our keys.
    """
    with handshakes.with_server(target.host, target.port):
        transport = _open(target, stack, handshakes)
        transport.use_compression(compress)
        with handshakes.turn():
            _negotiate(target, transport)
            check_host_key(target, transport.get_remote_server_key())
            log_in(target, transport)
    transport.set_keepalive(int(target.keepalive_s))
    return transport


def fetch_host_key(target: SshTarget) -> paramiko.PKey:
    """Return the key that ``target`` shows, believed or not, without logging in there.

    Raises:
        DeviceError: if it, or a host on the way, cannot be reached; hosts on the way must be known.
    """
    with ExitStack() as stack:
        transport = _open(target, stack, Handshakes())
        _negotiate(target, transport)
        return transport.get_remote_server_key()


def _open(target: SshTarget, stack: ExitStack, handshakes: Handshakes) -> paramiko.Transport:
    """Return a connection on which nothing was said yet."""
    _silence_paramiko()
    transport = _Connection(_open_socket(target, stack, handshakes))
    stack.callback(transport.close)
    transport.banner_timeout = transport.handshake_timeout = target.connect_timeout_s
    transport.auth_timeout = transport.channel_timeout = AUTH_TIMEOUT_S
    return transport


def _negotiate(target: SshTarget, transport: paramiko.Transport) -> None:
    """Agree on keys with nobody knows whom: the host key is not checked yet."""
    options = transport.get_security_options()
    options.key_types = preferred_algorithms(known_keys(target), options.key_types)
    options.ciphers = sorted(options.ciphers, key=lambda name: name not in FAST_CIPHERS)
    try:
        transport.start_client(timeout=2 * target.connect_timeout_s)
        # start_client returns without a word when its time is over; asking for the key tells.
        transport.get_remote_server_key()
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise DeviceUnreachable(_no_ssh(target, error)) from error


def _no_ssh(target: SshTarget, error: Exception) -> str:
    said = str(error) or "it hung up"
    if target.proxy_command:
        return f'{target.title}: no SSH server answers through ProxyCommand "{target.proxy_command}": {said}'
    return f"{target.title}: no SSH server answers there: {said}"


def _silence_paramiko() -> None:
    # paramiko logs what it also raises; without a handler, logging would print that with a traceback.
    logger = logging.getLogger("paramiko")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def _open_socket(target: SshTarget, stack: ExitStack, handshakes: Handshakes) -> socket.socket | paramiko.Channel:
    if target.via:
        return _open_tunnel(target, connect(target.via, stack, handshakes))
    if target.proxy_command:
        return _start_proxy(target, target.proxy_command, stack)
    return _open_tcp(target)


def _open_tunnel(target: SshTarget, jump: paramiko.Transport) -> paramiko.Channel:
    try:
        return jump.open_channel(
            "direct-tcpip", (target.host, target.port), ("127.0.0.1", 0), timeout=target.connect_timeout_s
        )
    except (paramiko.SSHException, EOFError, OSError) as error:
        jump_title = target.via.title if target.via else ""
        raise DeviceUnreachable(f"{target.title} cannot be reached from {jump_title}: {error}") from error


def _start_proxy(target: SshTarget, command: str, stack: ExitStack) -> socket.socket:
    """Return a socket to the standard input and output of a ProxyCommand.

    paramiko has a class for it, but that spins on a command that has ended, and leaves a zombie behind.
    """
    ours, theirs = socket.socketpair()
    stack.callback(ours.close)
    try:
        with theirs:
            child = subprocess.Popen(
                shlex.split(command), stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL
            )
    except (OSError, ValueError) as error:
        raise DeviceUnreachable(f'ProxyCommand "{command}" of {target.title} cannot be run: {error}') from error
    stack.callback(_stop, child)
    return ours


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _open_tcp(target: SshTarget) -> socket.socket:
    try:
        connected = socket.create_connection((target.host, target.port), timeout=target.connect_timeout_s)
        # Requests are small and follow each other: without this the second waits until the first is acknowledged, which
        # the far end puts off for 40 ms.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected
    except socket.gaierror as error:
        raise DeviceUnreachable(f'{target.title}: host name "{target.host}" is unknown: {error.strerror}') from error
    except ConnectionRefusedError as error:
        remedy = f"check that it is up and that sshd listens on port {target.port}"
        raise DeviceUnreachable(f"{target.title}: connection refused; {remedy}") from error
    except TimeoutError as error:
        within = f"within {target.connect_timeout_s:g} s; check that it is on and in this network"
        raise DeviceUnreachable(f"{target.title}: no answer {within}") from error
    except OSError as error:
        raise DeviceUnreachable(f"{target.title}: cannot be reached: {error.strerror or error}") from error
