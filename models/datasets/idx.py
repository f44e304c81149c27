"""The idx format of MNIST and its relatives: http://yann.lecun.com/exdb/mnist/ (bottom of the page)."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNSIGNED_BYTE = 0x08


class IdxError(ValueError):
    """Bytes that are no idx file of unsigned bytes."""


def read_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """The array in an idx file.

    Args:
        content: the whole file, not compressed.
        name: of the file, for messages.

    Raises:
        IdxError: another format, another type than unsigned byte, or cut short.
    """
    import numpy as np

    shape = _read_shape(content, name)
    expected = 4 + 4 * len(shape) + math.prod(shape)
    if len(content) != expected:
        raise IdxError(f"{name}: {len(content)} bytes; its header of shape {list(shape)} asks for {expected}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _read_shape(content: bytes, name: str) -> tuple[int, ...]:
    """The header: two zero bytes, the type, the number of dimensions, then each dimension as a big-endian uint32."""
    if len(content) < 4 or content[:2] != b"\0\0":
        raise IdxError(f"{name}: starts with 0x{content[:4].hex()}; an idx file starts with 0x0000")
    kind, dimensions = content[2], content[3]
    if kind != UNSIGNED_BYTE:
        raise IdxError(f"{name}: element type 0x{kind:02x}; expected 0x08, unsigned byte")
    if dimensions == 0 or len(content) < 4 + 4 * dimensions:
        raise IdxError(f"{name}: {len(content)} bytes end inside the header of {dimensions} dimensions")
    return struct.unpack_from(f">{dimensions}I", content, 4)
