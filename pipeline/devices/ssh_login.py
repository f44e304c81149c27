"""Who we say we are: the keys that are offered to an SSH server, from files and from ssh-agent."""

from __future__ import annotations

import base64
import binascii
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.pkey import UnknownKeyType

from pipeline.devices.ssh_config import SshTarget
from pipeline.errors import AuthenticationRefused, DeviceUnreachable


@dataclass(frozen=True)
class Identity:
    """A key that can be offered, and where it comes from."""

    source: str
    key: paramiko.PKey

    def __str__(self) -> str:
        return f"{self.source} ({self.key.get_name()} {self.key.fingerprint})"


@dataclass(frozen=True)
class Unusable:
    """A key file that cannot be offered, and why."""

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.path} {self.problem}"


def log_in(target: SshTarget, transport: paramiko.Transport) -> None:
    """Authenticate with the first key that ``target`` accepts: key files first, then ssh-agent's.

    Raises:
        AuthenticationRefused: if it accepts none; the message lists what was offered and what could not be.
        DeviceUnreachable: if the connection breaks meanwhile.
    """
    files = [_load(path) for path in _identity_paths(target)]
    unusable = [entry for entry in files if isinstance(entry, Unusable)]
    if any(entry.path == target.own_identity and not entry.path.exists() for entry in unusable):
        raise AuthenticationRefused(
            f'key file {target.own_identity} does not exist; {target.device} names it as "identity_file"'
        )
    with closing(_agent()) as agent:
        offered: list[Identity] = []
        for identity in [*(f for f in files if isinstance(f, Identity)), *_agent_identities(target, agent)]:
            offered.append(identity)
            if _is_accepted(target, transport, identity):
                return
    raise AuthenticationRefused(_refusal(target, offered, unusable))


def _is_accepted(target: SshTarget, transport: paramiko.Transport, identity: Identity) -> bool:
    try:
        transport.auth_publickey(target.user, identity.key)
    except (paramiko.SSHException, EOFError, OSError) as error:
        if transport.is_active():
            # Refused; or this one key could not be used to sign, for example because ssh-agent asked and was told no.
            return False
        # Servers hang up after a few refused keys; paramiko calls that an AuthenticationException too.
        text = f"{target.title} hung up while {identity} was offered; it may allow fewer keys than were offered"
        raise DeviceUnreachable(f'{text}: set "identity_file", and IdentitiesOnly in ~/.ssh/config') from error
    return transport.is_authenticated()


def _refusal(target: SshTarget, offered: list[Identity], unusable: list[Unusable]) -> str:
    tried = ", ".join(map(str, offered)) or "none"
    # A default key that is not there is no news; one that needs a passphrase is.
    problems = [entry for entry in unusable if entry.path.exists()]
    text = f"{target.title} refused the login; keys offered: {tried}"
    if problems:
        text += f"; not usable: {', '.join(map(str, problems))}"
    return f'{text}; put a public key into {target.user}\'s authorized_keys there, or set "identity_file" or "user"'


def _identity_paths(target: SshTarget) -> list[Path]:
    own = [target.own_identity] if target.own_identity else []
    return list(dict.fromkeys([*own, *target.identity_files]))


def _load(path: Path) -> Identity | Unusable:
    try:
        return Identity(str(path), paramiko.PKey.from_path(str(path)))
    except FileNotFoundError:
        return Unusable(path, "does not exist")
    except OSError as error:
        return Unusable(path, f"cannot be read: {error.strerror}")
    except (TypeError, paramiko.PasswordRequiredException):
        # cryptography says with a TypeError that a password is missing.
        return Unusable(path, f'needs a passphrase: run "ssh-add {path}"')
    except (ValueError, UnsupportedAlgorithm, UnknownKeyType, paramiko.SSHException):
        return Unusable(path, "is no private key of a supported type (ed25519, ecdsa, rsa)")


def _agent() -> paramiko.Agent:
    try:
        return paramiko.Agent()
    except paramiko.SSHException as error:
        raise AuthenticationRefused(f"ssh-agent at $SSH_AUTH_SOCK does not answer as expected: {error}") from error


def _agent_identities(target: SshTarget, agent: paramiko.Agent) -> list[Identity]:
    wanted = {_public_blob(path) for path in _identity_paths(target)} if target.identities_only else None
    keys = [key for key in agent.get_keys() if wanted is None or key.asbytes() in wanted]
    return [Identity(f'ssh-agent "{key.comment}"', key) for key in keys]


def _public_blob(path: Path) -> bytes | None:
    """Return the public half of an identity file, which ssh-agent may hold the private half of."""
    public = path if path.suffix == ".pub" else path.with_name(f"{path.name}.pub")
    try:
        return base64.b64decode(public.read_text().split()[1])
    except (OSError, IndexError, UnicodeDecodeError, binascii.Error):
        return None
