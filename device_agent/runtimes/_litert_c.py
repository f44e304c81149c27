"""As much of LiteRT's C interface as a profile needs, called in the wheel's own ``libLiteRt.so``.

The types are those of ``litert/c/`` (litert_layout.h, litert_model_types.h, litert_profiler_event.h) of LiteRT 2. What
is created lives as long as the process, which is one child for one model.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

CPU = 1
READ, WRITE = 0, 1
# The first signature; a file without any is given one by LiteRT.
SIGNATURE = ctypes.c_size_t(0)


class LiteRtError(RuntimeError):
    """A call of the library that failed; the text names the call and its status."""


class Layout(ctypes.Structure):
    """The shape of a tensor; ``strides`` count only with ``has_strides``."""

    _fields_ = (
        ("rank", ctypes.c_uint32, 7),
        ("has_strides", ctypes.c_uint32, 1),
        ("dimensions", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    )


class TensorType(ctypes.Structure):
    """The type of a tensor's elements, a number of LiteRT's own, and its shape."""

    _fields_ = (("element_type", ctypes.c_int), ("layout", Layout))


class Event(ctypes.Structure):
    """One profiled event; ``tag`` is the address of its name, valid until the profiler is reset."""

    _fields_ = (
        ("tag", ctypes.c_uint64),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_uint64 * 6),
        ("metadata", ctypes.c_uint64 * 2),
        ("source", ctypes.c_int),
    )


class Library:
    """The loaded library; the names of its functions are given without "LiteRt"."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._libc = ctypes.CDLL(None)
        self._libc.strdup.restype = ctypes.c_void_p

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            LiteRtError: if this version has no such function, or it returns another status than 0.
        """
        try:
            function = getattr(self._library, f"LiteRt{name}")
        except AttributeError:
            raise LiteRtError(f"this version of LiteRT has no LiteRt{name}") from None
        status = function(*arguments)
        if status:
            raise LiteRtError(f"LiteRt{name} failed with status {status}")

    def create(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """Call a function that gives a handle through its last argument; raises as ``call``."""
        handle = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(handle))
        return handle

    def count(self, name: str, *arguments: Any) -> int:
        """Call a function that gives a size through its last argument; raises as ``call``."""
        size = ctypes.c_size_t()
        self.call(name, *arguments, ctypes.byref(size))
        return size.value

    def add_options(self, options: ctypes.c_void_p, identifier: str, toml: str) -> None:
        """Add options of one part of the runtime, written as TOML; raises as ``call``."""
        # The library frees the text by the function that it is given along.
        text = ctypes.c_void_p(self._libc.strdup(toml.encode("ascii")))
        free = ctypes.cast(self._libc.free, ctypes.c_void_p)
        added = self.create("CreateOpaqueOptions", identifier.encode("ascii"), text, free)
        self.call("AddOpaqueOptions", options, added)


class Buffers:
    """All inputs or all outputs of a model in memory of the runtime, zeros at first."""

    def __init__(self, library: Library, handles: list[ctypes.c_void_p]) -> None:
        self._library = library
        self._handles = handles
        self.count = ctypes.c_size_t(len(handles))
        self.array = (ctypes.c_void_p * len(handles))(*(handle.value for handle in handles))
        for place in range(len(handles)):
            self.write(place, bytes(self.size_bytes(place)))

    def size_bytes(self, place: int) -> int:
        """Return how many bytes a tensor has, without padding."""
        return self._library.count("GetTensorBufferPackedSize", self._handles[place])

    def write(self, place: int, content: bytes) -> None:
        """Copy ``content`` into a tensor.

        Raises:
            ValueError: if it has not the tensor's size.
        """
        size = self.size_bytes(place)
        if len(content) != size:
            raise ValueError(f"input {place} is given {len(content)} bytes; expected {size}")
        address = ctypes.c_void_p()
        self._library.call("LockTensorBuffer", self._handles[place], ctypes.byref(address), WRITE)
        ctypes.memmove(address, content, size)
        self._library.call("UnlockTensorBuffer", self._handles[place])


def load_library() -> Library:
    """Return the ``libLiteRt.so`` of the installed wheel.

    Raises:
        LiteRtError: if the wheel has none.
    """
    package = importlib.util.find_spec("ai_edge_litert")
    path = Path(package.origin).with_name("libLiteRt.so") if package and package.origin else None
    if path is None or not path.is_file():
        raise LiteRtError(f"{path or 'ai_edge_litert'} is not there; expected it in the wheel ai-edge-litert")
    return Library(ctypes.CDLL(str(path)))
