"""Which host keys are believed: edgepress's own list first, then the user's known_hosts files.

A key is never taken over silently: only ``trust`` writes, and only to edgepress's own list. A host that stands in that
list is judged by it alone, so that a key replaced there is no longer believed although the user's files still have it.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

from pipeline.devices.ssh_config import SshTarget
from pipeline.errors import HostKeyRefused

# An RSA key is stored as ssh-rsa whatever hash its signatures are made with; SHA-1 is not among those we accept.
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
_HASHED = re.compile(r"\|1\|[A-Za-z0-9+/]{27}=\|[A-Za-z0-9+/]{27}=")


@dataclass(frozen=True)
class KnownKey:
    """A line of a known_hosts file that speaks of one host."""

    file: Path
    line: int
    is_revoked: bool
    key: paramiko.PKey


def known_keys(target: SshTarget) -> list[KnownKey]:
    """Return the keys that decide about ``target``, revoked ones of any file included."""
    own = _keys_in(target.trusted_file, target.known_hosts_name)
    users = [key for file in target.known_hosts_files for key in _keys_in(file, target.known_hosts_name)]
    return own + [key for key in users if key.is_revoked or not own]


def preferred_algorithms(known: Iterable[KnownKey], offered: Iterable[str]) -> list[str]:
    """Return ``offered`` with the algorithms of the known keys first, so that a known key is what the host shows."""
    first: list[str] = []
    for entry in known:
        first += _ALGORITHMS.get(entry.key.get_name(), (entry.key.get_name(),))
    return sorted(offered, key=lambda name: first.index(name) if name in first else len(first))


def is_known(target: SshTarget, key: paramiko.PKey) -> bool:
    """Tell whether ``key`` is the believed key of ``target``.

    Raises:
        HostKeyRefused: if it was revoked.
    """
    known = known_keys(target)
    for entry in known:
        if entry.is_revoked and entry.key == key:
            raise HostKeyRefused(f"host key of {target.title} is revoked by {entry.file}:{entry.line}: {_shown(key)}")
    return any(entry.key == key for entry in known)


def check_host_key(target: SshTarget, key: paramiko.PKey) -> None:
    """Return if ``key`` is the believed key of ``target``.

    Raises:
        HostKeyRefused: if it is unknown, changed or revoked; the message says what to do.
    """
    if is_known(target, key):
        return
    refuse_changed_key(target, key)
    raise HostKeyRefused(
        f"host key of {target.title} is unknown: {_shown(key)}; compare it with the one the board itself shows, "
        f'then run "edgepress device trust {target.device}"'
    )


def trust(target: SshTarget, key: paramiko.PKey, replace: bool) -> None:
    """Write ``key`` into edgepress's own list as the key of ``target``.

    Args:
        target: the host.
        key: its key, which a human has compared.
        replace: drop other keys of the host from the list; without it, a changed key is refused.

    Raises:
        HostKeyRefused: if another key is known for the host, and ``replace`` is False.
    """
    if is_known(target, key):
        return
    if not replace:
        refuse_changed_key(target, key)
    kept = _lines_without(target.trusted_file, target.known_hosts_name)
    _write_private(target.trusted_file, [*kept, f"{target.known_hosts_name} {key.get_name()} {key.get_base64()}"])


def refuse_changed_key(target: SshTarget, key: paramiko.PKey) -> None:
    """Return if nothing is known about ``target``.

    Raises:
        HostKeyRefused: if other keys are; the message has the expected fingerprint and the one found.
    """
    expected = [entry for entry in known_keys(target) if not entry.is_revoked]
    if not expected:
        return
    same_type = [entry for entry in expected if entry.key.get_name() == key.get_name()]
    known = (same_type or expected)[0]
    remedy = f'"edgepress device trust {target.device} --replace"'
    if known.file != target.trusted_file:
        remedy += f" and \"ssh-keygen -R '{target.known_hosts_name}' -f {known.file}\""
    raise HostKeyRefused(
        f"host key of {target.title} has changed: expected {_shown(known.key)} ({known.file}:{known.line}), "
        f"found {_shown(key)}; this may be an attack; if the board was installed anew, run {remedy}"
    )


def _shown(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _keys_in(file: Path, name: str) -> list[KnownKey]:
    found = []
    for number, line in enumerate(_read_lines(file), 1):
        marker, entry = _parse(line)
        # A certificate authority vouches for hosts by certificates, which paramiko does not check.
        if entry and entry.key and marker != "@cert-authority" and _speaks_of(entry.hostnames or [], name):
            found.append(KnownKey(file, number, marker == "@revoked", entry.key))
    return found


def _parse(line: str) -> tuple[str, HostKeyEntry | None]:
    """Return the marker and the entry of a line; paramiko knows no markers and would take one for a host's name."""
    marker, rest = re.fullmatch(r"\s*(@\S+\s+)?(.*?)\s*", line).groups(default="")  # type: ignore[union-attr]  # matches any
    if not rest or rest.startswith("#"):
        return "", None
    try:
        return marker.strip(), HostKeyEntry.from_line(re.sub(r"\s+", " ", rest))
    except (InvalidHostKey, paramiko.SSHException, ValueError):
        return "", None


def _speaks_of(patterns: list[str], name: str) -> bool:
    if any(pattern.startswith("!") and fnmatch.fnmatchcase(name, _glob(pattern[1:])) for pattern in patterns):
        return False
    return any(_matches(pattern, name) for pattern in patterns)


def _matches(pattern: str, name: str) -> bool:
    if _HASHED.fullmatch(pattern):
        return paramiko.HostKeys.hash_host(name, pattern) == pattern
    return fnmatch.fnmatchcase(name, _glob(pattern))


def _glob(pattern: str) -> str:
    # "[host]:port" is not a set of characters here.
    return pattern.lower().replace("[", "[[]")


def _lines_without(file: Path, name: str) -> list[str]:
    return [line for line in _read_lines(file) if line.split(" ")[0] != name]


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        # As ssh has it: a list that cannot be read vouches for nobody.
        return []


def _write_private(file: Path, lines: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        temporary.touch(mode=0o600)
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
