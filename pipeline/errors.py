"""Everything that can go wrong and is worth a sentence, as one tree.

EdgepressError                    exit code 1
├── UsageError                    exit code 2: what was asked for cannot be done as asked
│   ├── ConfigError               a YAML file with mistakes, all of them
│   ├── ModelError                a model file that is missing, unreadable or does not fit
│   └── DataError                 samples that are missing or do not fit the model or the metric
├── StepError                     a compression step failed, timed out or changed nothing
├── StorageError                  this machine's disk is full or refuses to be written
└── DeviceError                   anything between here and the board
    ├── DeviceUnreachable         down, cut off, or no agent behind the connection
    │   └── AgentMissing          it is up, but its agent is not there or does not run
    ├── HostKeyRefused            unknown or changed host key
    ├── AuthenticationRefused     the board does not accept the keys offered
    ├── ProtocolMismatch          the agent speaks another version
    ├── DeviceFull                no room on the board
    ├── ProvisioningFailed        the agent could not be installed or removed; what ran there before runs on
    │   └── NoRuntimeFits         no runtime can run on this board
    ├── DeviceInterrupted         given up from here: Ctrl-C, or its time was over
    ├── EmulatorError             the emulated board cannot be built, or does not come up
    └── AgentError                the agent answered with an error
        └── DeviceLeased          another has the device

A missed budget is a result, not an error: ``edgepress run`` ends with exit code 3.
"""

from __future__ import annotations

from dataclasses import dataclass


class EdgepressError(Exception):
    """A fault that is told to the user in one message, without a traceback."""

    exit_code = 1


class UsageError(EdgepressError):
    """What was asked for cannot be done as asked."""

    exit_code = 2


@dataclass(frozen=True)
class Mistake:
    """One mistake in a file: where it is, what was found there, what is allowed."""

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}"


class ConfigError(UsageError):
    """A YAML file with mistakes; ``mistakes`` has all of them, in the file's order."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes


class ModelError(UsageError):
    """A model file that is missing, unreadable, or does not fit what is asked of it."""


class DataError(UsageError):
    """Samples that are missing, damaged, or do not fit the model or the metric."""


class StepError(EdgepressError):
    """A compression step failed, timed out, or changed nothing."""


class StorageError(EdgepressError):
    """This machine's disk is full or refuses to be written."""


class DeviceError(EdgepressError):
    """Anything between here and the board."""


class DeviceUnreachable(DeviceError):
    """The device is down, cut off, or has no agent behind the connection."""


class AgentMissing(DeviceUnreachable):
    """The device is up, but its agent is not there; or it ``is_installed`` and does not run."""

    def __init__(self, message: str, is_installed: bool = False) -> None:
        super().__init__(message)
        self.is_installed = is_installed


class HostKeyRefused(DeviceError):
    """The host key is unknown or has changed."""


class AuthenticationRefused(DeviceError):
    """The device does not accept the keys that were offered."""


class ProtocolMismatch(DeviceError):
    """The agent speaks another version of the protocol."""


class DeviceFull(DeviceError):
    """There is no room on the device."""


class ProvisioningFailed(DeviceError):
    """The agent could not be installed or removed; what ran there before runs on."""


class NoRuntimeFits(ProvisioningFailed):
    """No runtime can run on this board; the message has the reason for each."""


class DeviceInterrupted(DeviceError):
    """What goes on on the device was left to itself: by Ctrl-C, or because its time was over."""


class EmulatorError(DeviceError):
    """The emulated board cannot be built, started or spoken with."""


class AgentError(DeviceError):
    """The agent answered a request with an error; ``code`` is JSON-RPC's or one of ``device_agent.protocol``."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class DeviceLeased(AgentError):
    """Another has the device; the message says who, and when it falls free."""
