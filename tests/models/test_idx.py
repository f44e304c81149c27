"""The idx format: what is read and what is refused."""

from __future__ import annotations

import struct

import pytest

from models.datasets.idx import IdxError, read_idx


def test_array_comes_back_in_the_header_s_shape() -> None:
    array = read_idx(b"\0\0\x08\x02" + struct.pack(">2I", 2, 3) + bytes(range(6)), "a")
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert str(array.dtype) == "uint8"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a: starts with 0x; an idx file starts with 0x0000"),
        (b"\x1f\x8b\x08\x00", "a: starts with 0x1f8b0800; an idx file starts with 0x0000"),
        (b"\0\0\x0d\x01\0\0\0\0", "a: element type 0x0d; expected 0x08, unsigned byte"),
        (b"\0\0\x08\x03\0\0\0\1", "a: 8 bytes end inside the header of 3 dimensions"),
        (b"\0\0\x08\x00", "a: 4 bytes end inside the header of 0 dimensions"),
        (b"\0\0\x08\x01\0\0\0\3ab", r"a: 10 bytes; its header of shape \[3\] asks for 11"),
        (b"\0\0\x08\x01\0\0\0\1ab", r"a: 10 bytes; its header of shape \[1\] asks for 9"),
    ],
)
def test_other_bytes_are_refused_with_what_was_expected(content: bytes, message: str) -> None:
    with pytest.raises(IdxError, match=f"^{message}$"):
        read_idx(content, "a")
