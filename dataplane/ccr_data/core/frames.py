"""How numbered batches lie in a file: after a magic, frames of length, CRC-32, number and payload.

Pure. A file that was torn or damaged anywhere is read up to the first frame that is not whole; what comes after it
is not trusted. A number may occur again: the later frame replaces the earlier.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAGIC = b"ccr-spool 1\n"
MAX_PAYLOAD_BYTES = 64 << 20  # the control plane takes no larger message

_HEAD = struct.Struct(">IIQ")  # payload length in bytes, CRC-32 of number and payload, number
_NUMBER = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame, and where in the file its payload is."""

    number: int
    payload: bytes
    start: int

    @property
    def end(self) -> int:
        """Where in the file the next frame begins."""
        return self.start + len(self.payload)


def frame(number: int, payload: bytes) -> bytes:
    """A batch as it lies in the file."""
    return _HEAD.pack(len(payload), _check(number, payload), number) + payload


def frames_in(read: Callable[[int], bytes], start: int = len(MAGIC)) -> Iterator[Frame]:
    """The whole frames of a file, in its order; `read(n)` gives its next n bytes, fewer at its end.

    Ends at the first frame that is not whole or not as it was written.
    """
    position = start
    while True:
        head = read(_HEAD.size)
        if len(head) < _HEAD.size:
            return
        length, check, number = _HEAD.unpack(head)
        if length > MAX_PAYLOAD_BYTES or number < 1:
            return
        payload = read(length)
        if len(payload) < length or _check(number, payload) != check:
            return
        position += _HEAD.size
        yield Frame(number, payload, position)
        position += length


def _check(number: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_NUMBER.pack(number)))
