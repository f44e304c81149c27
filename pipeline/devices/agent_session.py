"""One conversation with an agent: its hello, then requests and answers (JSON-RPC 2.0 over a stream of lines)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from device_agent.protocol import (
    DISK_FULL,
    LEASED,
    PROTOCOL_VERSION,
    Hello,
    JobEvent,
    ProtocolError,
    check_range,
    decode,
    encode,
    from_json,
)
from pipeline.devices.agent_stream import printable
from pipeline.devices.inventory import LOCAL
from pipeline.devices.transport import AgentStream
from pipeline.errors import AgentError, DeviceError, DeviceFull, DeviceLeased, ProtocolMismatch

HELLO_TIMEOUT_S = 60.0
MOST_BYTES = 1 << 63

Message = dict[str, Any]
OnEvent = Callable[[JobEvent], None]
T = TypeVar("T")


def open_session(stream: AgentStream, device: str, timeout_s: float = HELLO_TIMEOUT_S) -> AgentSession:
    """Read the agent's hello from a fresh ``stream`` and return the conversation that follows; closes it on failure.

    The hello may take ``timeout_s``: the first one asks each runtime whether it works.

    Raises:
        ProtocolMismatch: if the agent speaks another version.
        DeviceError: if what comes is no hello, or nothing comes.
    """
    try:
        return AgentSession(stream, device, _read_hello(stream, device, timeout_s))
    except BaseException:
        stream.close()
        raise


class AgentSession:
    """A stream to an agent that has said ``hello``. What comes from it is checked, never trusted."""

    def __init__(self, stream: AgentStream, device: str, hello: Hello) -> None:
        self.hello = hello
        self._stream = stream
        self._device = device
        self._last_id = 0

    def call(
        self, answer: type[T], method: str, params: Message, timeout_s: float | None, on_event: OnEvent | None = None
    ) -> T:
        """Send one request and return its result as an ``answer``.

        Args:
            answer: a dataclass, read by ``from_json``.
            method: one of those in ``device_agent.protocol``.
            params: its parameters, JSON-ready.
            timeout_s: how long each next line may take; None: as long as the far end is alive.
            on_event: called with each event of a job that comes before the result.

        Raises:
            AgentError: if the agent answers with an error; DeviceLeased when another has the device, DeviceFull when
                it has no room.
            DeviceError: if the answer is not of the protocol's form, or the connection is cut.
        """
        self._last_id += 1
        self._stream.write_line(self._encoded(method, params))
        while True:
            message = self._read_message(timeout_s)
            if message.get("id") == self._last_id:
                return _parse(answer, self._result(message), self._device)
            if on_event and message.get("method") == "job.event":
                on_event(_parse(JobEvent, message.get("params"), self._device))

    def close(self) -> None:
        """End the conversation."""
        self._stream.close()

    def interrupt(self) -> None:
        """Have the call that waits for an answer, in another thread, raise DeviceUnreachable at once."""
        self._stream.interrupt()

    def _encoded(self, method: str, params: Message) -> bytes:
        try:
            return encode({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        except ProtocolError as error:
            raise DeviceError(f"{method} cannot be asked of {self._device}: {error}") from error

    def _read_message(self, timeout_s: float | None) -> Message:
        line = self._stream.read_line(timeout_s)
        try:
            return decode(line)
        except ProtocolError as error:
            raise _malformed(error, self._device) from error

    def _result(self, message: Message) -> object:
        if "error" in message:
            self._raise_error(message["error"])
        return message.get("result")

    def _raise_error(self, error: object) -> NoReturn:
        if not isinstance(error, dict) or not isinstance(error.get("code"), int):
            raise _malformed(ProtocolError("an error without a code"), self._device)
        text = f"{self._device}: {printable(str(error.get('message', '')))}"
        if error["code"] == DISK_FULL:
            raise DeviceFull(text)
        raise (DeviceLeased if error["code"] == LEASED else AgentError)(text, error["code"])


def _read_hello(stream: AgentStream, device: str, timeout_s: float) -> Hello:
    params = _hello_params(stream.read_line(timeout_s), device)
    version = params.get("protocol")
    if version != PROTOCOL_VERSION:
        raise ProtocolMismatch(
            f"agent on {device} speaks protocol {printable(json.dumps(version), 20)}, this host needs "
            f"{PROTOCOL_VERSION}; {_what_mends(device)}"
        )
    return _checked(_parse(Hello, params, device), device)


def _what_mends(device: str) -> str:
    if device == LOCAL.name:
        return "end that agent: the next run starts this checkout's"
    return f'run "edgepress device provision {device}"'


def _checked(hello: Hello, device: str) -> Hello:
    """Return ``hello`` if paths can be made from its home, and its numbers can be shown."""
    try:
        if not (hello.home.startswith("/") and hello.home.isprintable()):
            raise ProtocolError(f"home is {hello.home!r}; expected an absolute path")
        check_range("free_bytes", hello.free_bytes, 0, MOST_BYTES)
        check_range("ram_bytes", hello.device.ram_bytes or 0, 0, MOST_BYTES)
    except ProtocolError as error:
        raise _malformed(error, device) from error
    return hello


def _hello_params(line: bytes, device: str) -> Message:
    try:
        message = decode(line)
    except ProtocolError as error:
        said = printable(line.decode("utf-8", "replace"), 80)
        remedy = "the login shell there may print something before the agent can"
        raise DeviceError(f'{device} said "{said}" instead of the agent\'s hello; {remedy}') from error
    params = message.get("params")
    if message.get("method") != "hello" or not isinstance(params, dict):
        raise DeviceError(f"{device} did not begin with the agent's hello")
    return params


def _parse(kind: type[T], value: object, device: str) -> T:
    try:
        return from_json(kind, value)
    except ProtocolError as error:
        raise _malformed(error, device) from error


def _malformed(error: ProtocolError, device: str) -> DeviceError:
    return DeviceError(f"the agent on {device} does not keep to the protocol: {printable(str(error))}")
