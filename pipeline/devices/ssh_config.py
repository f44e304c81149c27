"""Where an SSH device really is: the device's own values first, then what ``~/.ssh/config`` says.

paramiko parses that file and expands its tokens, but applies none of it and does not follow ``Include``.
"""

from __future__ import annotations

import getpass
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import paramiko
import platformdirs

from pipeline.devices.inventory import Device, is_host, is_user
from pipeline.errors import ConfigError, Mistake

DEFAULT_CONNECT_TIMEOUT_S = 10.0
DEFAULT_KEEPALIVE_S = 15.0
DEFAULT_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")
DEFAULT_IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
MAX_INCLUDE_DEPTH = 16

_SETTING = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.+?)\s*")
_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:\[\]]+)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class SshTarget:
    """One SSH server, and through which other one it is reached.

    ``own_identity`` is the key named by the device itself: it must exist, the ``identity_files`` of ``~/.ssh/config``
    need not. ``trusted_file`` is edgepress's own list of host keys, ``known_hosts_files`` are the user's.
    """

    device: str
    is_jump: bool
    host: str
    port: int
    user: str
    own_identity: Path | None
    identity_files: tuple[Path, ...]
    identities_only: bool
    trusted_file: Path
    known_hosts_files: tuple[Path, ...]
    proxy_command: str | None
    via: SshTarget | None
    connect_timeout_s: float
    keepalive_s: float

    @property
    def title(self) -> str:
        """How messages name it: ``pi4 (pi@10.0.0.5:22)``."""
        address = f"{self.user}@{self.host}:{self.port}"
        return f"jump host {address} of {self.device}" if self.is_jump else f"{self.device} ({address})"

    @property
    def known_hosts_name(self) -> str:
        """The name under which its key stands in a known_hosts file."""
        host = self.host.lower()
        return host if self.port == 22 else f"[{host}]:{self.port}"

    @property
    def hops(self) -> list[SshTarget]:
        """Every server on the way, the nearest first, this one last."""
        return [*(self.via.hops if self.via else []), self]


def ssh_target(device: Device, config_file: Path | None = None) -> SshTarget:
    """Return where ``device`` is, by its own values and the SSH configuration (``~/.ssh/config`` unless given).

    Raises:
        ConfigError: if the SSH configuration cannot be read or understood.
    """
    reader = _Reader(device.name, config_file or Path.home() / ".ssh" / "config")
    target = reader.target(device.host, device.user, device.port, frozenset())
    if device.identity_file:
        target = replace(target, own_identity=device.identity_file)
    if device.connect_timeout_s:
        target = replace(target, connect_timeout_s=device.connect_timeout_s)
    return target


class _Reader:
    """The SSH configuration, applied for one device."""

    def __init__(self, device: str, file: Path) -> None:
        self._device = device
        self._file = file
        self._text = read_config(file)

    def target(self, alias: str, user: str | None, port: int | None, seen: frozenset[str]) -> SshTarget:
        """Return the server ``alias``; hosts in ``seen`` are not jumped through again (``Host *`` names them too)."""
        # The first value that is found counts, so values given by the device come before the file.
        given = (f"User {user}\n" if user else "") + (f"Port {port}\n" if port else "")
        options = self._lookup(given, alias)
        via, command = self._proxy(options, seen | {alias})
        return SshTarget(
            device=self._device,
            is_jump=bool(seen),
            host=options["hostname"],
            port=self._port(options.get("port", "22")),
            user=options.get("user") or getpass.getuser(),
            own_identity=None,
            identity_files=_paths(list(options.get("identityfile") or DEFAULT_IDENTITIES)),
            identities_only=options.get("identitiesonly", "no").lower() == "yes",
            trusted_file=platformdirs.user_config_path("edgepress") / "known_hosts",
            known_hosts_files=(*_paths(self._words(options)), SYSTEM_KNOWN_HOSTS),
            proxy_command=command,
            via=via,
            connect_timeout_s=_seconds(options.get("connecttimeout"), DEFAULT_CONNECT_TIMEOUT_S),
            keepalive_s=_seconds(options.get("serveraliveinterval"), DEFAULT_KEEPALIVE_S),
        )

    def _lookup(self, given: str, alias: str) -> paramiko.SSHConfigDict:
        try:
            return paramiko.SSHConfig.from_text(given + self._text).lookup(alias)
        except (paramiko.SSHException, ValueError, KeyError) as error:
            raise self._mistake(str(error)) from error

    def _proxy(self, options: paramiko.SSHConfigDict, seen: frozenset[str]) -> tuple[SshTarget | None, str | None]:
        """Return the jump host or the command; of the two settings, OpenSSH takes the one that comes first."""
        key = next((key for key in options if key in ("proxyjump", "proxycommand")), None)
        value = options[key] if key else None
        if not value or value.lower() == "none":
            return None, None
        return (self._jumps(value, seen), None) if key == "proxyjump" else (None, value)

    def _jumps(self, value: str, seen: frozenset[str]) -> SshTarget | None:
        via: SshTarget | None = None
        for number, jump in enumerate(value.split(",")):
            user, host, port = self._parse_jump(jump.strip())
            if host in seen:
                return None
            hop = self.target(host, user, port, seen)
            via = hop if number == 0 else replace(hop, via=via, proxy_command=None)
        return via

    def _parse_jump(self, jump: str) -> tuple[str | None, str, int | None]:
        found = _JUMP.fullmatch(jump)
        user, host, port = found.group("user", "host", "port") if found else (None, "", None)
        host = host.strip("[]")
        if not is_host(host) or (user is not None and not is_user(user)):
            raise self._mistake(f'ProxyJump is "{jump}"; expected [user@]host[:port]')
        return user, host, self._port(port) if port else None

    def _port(self, value: str) -> int:
        if not value.isdecimal() or not 1 <= int(value) <= 65535:
            raise self._mistake(f'Port is "{value}"; expected an integer from 1 to 65535')
        return int(value)

    def _words(self, options: paramiko.SSHConfigDict) -> list[str]:
        value = options.get("userknownhostsfile", DEFAULT_KNOWN_HOSTS)
        try:
            return shlex.split(value)
        except ValueError as error:
            raise self._mistake(f"UserKnownHostsFile is {value}; {error}") from error

    def _mistake(self, message: str) -> ConfigError:
        return ConfigError([Mistake(str(self._file), None, message)])


def read_config(file: Path, depth: int = 0) -> str:
    """Return the text of an SSH configuration with its ``Include`` lines replaced by the files they name.

    Raises:
        ConfigError: if a file cannot be read, or files include each other without end.
    """
    if depth > MAX_INCLUDE_DEPTH:
        raise ConfigError([Mistake(str(file), None, f"Include goes deeper than {MAX_INCLUDE_DEPTH} files")])
    lines, block = [], "Host *"
    for line in _read_lines(file):
        setting = _SETTING.fullmatch(line)
        key, value = (setting[1].lower(), setting[2]) if setting else ("", "")
        if key == "include":
            # What an included file opened must not go on behind it: the block around the Include does.
            lines += [*_included(file, value, depth), block]
            continue
        if key in ("host", "match"):
            block = line
        if key == "userknownhostsfile" and value[0] == value[-1] == '"':
            # paramiko takes the outer quotes away, which here may belong to two paths.
            line = f'{key} "{value}"'
        lines.append(line)
    return "\n".join(lines) + "\n"


def _included(file: Path, value: str, depth: int) -> list[str]:
    found = []
    for pattern in value.replace('"', "").split():
        whole = Path(file.parent, Path(pattern).expanduser())
        found += [read_config(path, depth + 1) for path in sorted(Path("/").glob(str(whole.absolute())[1:]))]
    return found


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Mistake(str(file), None, f"cannot be read: {error}")]) from error


def _paths(names: list[str]) -> tuple[Path, ...]:
    return tuple(Path(name).expanduser() for name in names if name.lower() != "none")


def _seconds(value: str | None, default: float) -> float:
    return float(value) if value and value.isdecimal() and int(value) else default
