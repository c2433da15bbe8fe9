"""Writing to a socket at once instead of at the end of the loop's round.

uvloop sends what `transport.write` is given only after all callbacks of its current round. The first byte of an answer would then
wait for the tap and the bookkeeping of the same callback, and for other connections. Measured: 8 to 15 µs of 110 µs per request.
"""

from __future__ import annotations

import asyncio
import os
import ssl


def descriptor_of(transport: asyncio.Transport) -> int:
    """The descriptor to write to; -1 where bytes must pass the transport, because it encrypts them."""
    if isinstance(transport.get_extra_info("ssl_object"), ssl.SSLObject):
        return -1
    sock = transport.get_extra_info("socket")
    return int(sock.fileno()) if sock is not None else -1


def write_now(transport: asyncio.Transport, descriptor: int, data: bytes) -> None:
    """Send the data in this call if nothing waits before it; what the kernel does not take goes the transport's way.

    The transport must not be closing: its descriptor could by then be another connection's.
    """
    if descriptor >= 0 and not transport.get_write_buffer_size():
        try:
            sent = os.write(descriptor, data)
        except OSError:  # full, or broken: the transport finds out which
            sent = 0
        if sent == len(data):
            return
        if sent:
            data = data[sent:]
    transport.write(data)
