"""The devices that this host knows: one YAML file each, and ``local``, which needs none."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import AfterValidator, Field

from device_agent.protocol import ConditionSpec
from pipeline.cache import storage_error
from pipeline.errors import ConfigError, Mistake, StorageError, UsageError
from pipeline.yaml_file import Location, Section, load_yaml, mistakes_in

PROJECT_FOLDER = Path("configs/devices")
DEFAULT_AGENT = "edgepress-agent"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# None of these may begin with "-": they become words of a ProxyCommand or of the command at the far end.
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]{0,254}")
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@\\-]{0,63}")
_AGENT = re.compile(r"(~/)?[A-Za-z0-9_./][A-Za-z0-9_./+-]{0,511}")
_HOME = re.compile(r"/[^\x00-\x1f\x7f]{1,511}")


@dataclass(frozen=True)
class Device:
    """A board, or this machine: how it is reached, and where its agent is.

    None means: as ``~/.ssh/config`` says, or else the usual default. ``file`` is None for the built-in ``local``;
    ``emulated`` is None where the board itself is asked whether it is.
    """

    name: str
    transport: Literal["local", "ssh"]
    host: str = ""
    port: int | None = None
    user: str | None = None
    identity_file: Path | None = None
    agent: str = DEFAULT_AGENT
    home: str | None = None
    tags: tuple[str, ...] = ()
    connect_timeout_s: float | None = None
    as_user: str | None = None
    conditions: ConditionSpec = field(default_factory=ConditionSpec)
    emulated: bool | None = None
    file: Path | None = field(default=None, compare=False)


# A laptop is hot by design and never idle; what it throttles by itself is noticed all the same.
LOCAL = Device("local", "local", conditions=ConditionSpec(max_temperature_c=None, max_other_cpus=1.0))


def is_host(value: str) -> bool:
    """Tell whether ``value`` can be a host's name or address."""
    return _HOST.fullmatch(value) is not None


def is_user(value: str) -> bool:
    """Tell whether ``value`` can be a user's name."""
    return _USER.fullmatch(value) is not None


def _matching(pattern: re.Pattern[str], expected: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check)


class ConditionsSection(Section):
    """Under which conditions a timed block counts; see ``device_agent.protocol.ConditionSpec``."""

    max_temperature_c: float | None = Field(80.0, ge=0, le=200)
    max_other_cpus: float | None = Field(0.5, ge=0, le=1024)
    min_clock_share: float | None = Field(None, ge=0, le=1)
    retries: int = Field(3, ge=0, le=100)
    cooldown_s: float = Field(60.0, ge=0, le=3600)
    cooldown_c: float = Field(5.0, ge=0, le=100)


class DeviceSection(Section):
    """A device's file."""

    transport: Literal["ssh", "local"] = "ssh"
    host: Annotated[str, _matching(_HOST, "a host name, an address, or a Host of ~/.ssh/config")] | None = None
    port: int | None = Field(None, ge=1, le=65535)
    user: Annotated[str, _matching(_USER, "a user's name")] | None = None
    identity_file: str | None = Field(None, min_length=1, description="the path of a private key")
    agent: Annotated[str, _matching(_AGENT, "the path of edgepress-agent on the device, without spaces")] = (
        DEFAULT_AGENT
    )
    home: Annotated[str, _matching(_HOME, "an absolute path on the device")] | None = None
    as_user: Annotated[str, _matching(_USER, "a user's name")] | None = Field(
        None, description="the user whom the agent runs as, by sudo, where that is not the one who logs in"
    )
    tags: list[Annotated[str, _matching(_NAME, "lower-case letters, digits, _ and -")]] = []  # noqa: RUF012  pydantic copies
    connect_timeout_s: float | None = Field(None, ge=0.1, le=600)
    conditions: ConditionsSection = ConditionsSection()
    emulated: bool | None = Field(None, description="whether its times are none; the board itself is asked otherwise")


def find_device(name: str) -> Device:
    """Return the device ``name``.

    Raises:
        UsageError: if there is none; the message lists those there are.
        ConfigError: with all mistakes in its file.
    """
    files = device_files()
    if name in files:
        return _load(name, files[name])
    if name == LOCAL.name:
        return LOCAL
    raise UsageError(f'unknown device "{name}"; known: {", ".join(sorted({LOCAL.name, *files}))}')


def list_devices() -> list[Device]:
    """Return all devices, sorted by name.

    Raises:
        ConfigError: with all mistakes in all files.
    """
    devices, mistakes = {LOCAL.name: LOCAL}, []
    for name, file in device_files().items():
        try:
            devices[name] = _load(name, file)
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return [devices[name] for name in sorted(devices)]


def add_device(device: Device, folder: Path | None = None) -> Path:
    """Write the file of a new device into ``folder``, or else where new ones belong, and return its path.

    Raises:
        UsageError: if the name is taken or a value is not allowed.
        StorageError: if the file cannot be written.
    """
    if not _NAME.fullmatch(device.name):
        raise UsageError(f'device name is "{device.name}"; expected lower-case letters, digits, _ and -, 63 at most')
    if device.name == LOCAL.name:
        raise UsageError('device "local" is built in; choose another name')
    taken = device_files().get(device.name)
    if taken:
        remedy = f'run "edgepress device remove {device.name}" first, or edit that file'
        raise UsageError(f'device "{device.name}" exists already in {taken}; {remedy}')
    document = _document(device)
    mistakes = [text for _, text in [*_host_mistakes(document), *mistakes_in(document, DeviceSection)]]
    if mistakes:
        raise UsageError("\n".join(mistakes))
    file = (folder or _folder_to_write()) / f"{device.name}.yaml"
    _write_whole(file, document)
    return file


def remove_device(name: str) -> Path:
    """Delete the file of the device ``name``, and return its path.

    Raises:
        UsageError: if there is no such file.
        StorageError: if it cannot be deleted.
    """
    device = find_device(name) if name not in device_files() else None
    if device is LOCAL:
        raise UsageError('device "local" is built in and has no file to remove')
    file = device_files()[name]
    try:
        file.unlink()
    except OSError as error:
        raise StorageError(f"{file} cannot be deleted: {error.strerror}") from error
    return file


def device_folders() -> list[Path]:
    """Return the folders that hold device files; a file in an earlier one hides its namesake in a later one.

    ``$EDGEPRESS_DEVICES`` stands for all; otherwise the project's folder and the user's.
    """
    chosen = os.environ.get("EDGEPRESS_DEVICES")
    if chosen:
        return [Path(chosen)]
    return [PROJECT_FOLDER, platformdirs.user_config_path("edgepress") / "devices"]


def users_folder() -> Path:
    """Return the folder of the user's own device files: none of a project's."""
    return device_folders()[-1]


def device_files() -> dict[str, Path]:
    """Return each device's name and file."""
    files: dict[str, Path] = {}
    for folder in reversed(device_folders()):
        files |= {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    return files


def _load(name: str, file: Path) -> Device:
    if not _NAME.fullmatch(name):
        raise ConfigError([Mistake(str(file), None, f'file name is "{file.name}"; expected [a-z0-9][a-z0-9_-]*.yaml')])
    section = load_yaml(file, DeviceSection, _host_mistakes)
    values: dict[str, Any] = section.model_dump()
    values["host"] = section.host or ""
    values["tags"] = tuple(section.tags)
    values["conditions"] = ConditionSpec(**section.conditions.model_dump())
    if section.identity_file:
        values["identity_file"] = Path(section.identity_file).expanduser()
    return Device(name=name, file=file, **values)


def _host_mistakes(document: dict[str, Any]) -> list[tuple[Location, str]]:
    if document.get("transport", "ssh") != "ssh" or document.get("host") is not None:
        return []
    return [((), '"host" is missing; expected a host name, an address, or a Host of ~/.ssh/config')]


def _document(device: Device) -> dict[str, Any]:
    """Return what the device's file says: all that is not the default."""
    default = Device("", "ssh")
    document: dict[str, Any] = {"transport": device.transport}
    for key in DeviceSection.model_fields:
        value = getattr(device, key)
        if key != "transport" and value != getattr(default, key):
            document[key] = _plain(value)
    return document


def _plain(value: object) -> object:
    if isinstance(value, ConditionSpec):
        return asdict(value)
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _folder_to_write() -> Path:
    folders = device_folders()
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def _write_whole(file: Path, document: dict[str, Any]) -> None:
    from ruamel.yaml import YAML

    yaml = YAML()
    # Long values stay on one line.
    yaml.width = 4096
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8") as out:
                yaml.dump(document, out)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, file) from error
