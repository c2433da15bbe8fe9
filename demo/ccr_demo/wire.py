"""Small dealings with aiohttp and the socket below it."""

import contextlib
import socket
import struct

from aiohttp import hdrs, web
from multidict import CIMultiDict

from ccr_demo.performance import Break, Head


def bound(host: str, port: int) -> socket.socket:
    """A socket on this address, not yet listening. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


async def read_body(request: web.BaseRequest, limit: int) -> bytes | None:
    """The whole body, or None if it is above the limit."""
    chunks, size = [], 0
    async for chunk in request.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            return None
    return b"".join(chunks)


def base_url(request: web.BaseRequest) -> str:
    """Scheme and host that the client asked."""
    return f"{request.scheme}://{request.headers.get(hdrs.HOST, '')}"


def response_for(head: Head | None) -> web.StreamResponse:
    """Aiohttp's answer for a head: of known length or chunked; an unused one where there is no head."""
    if head is None:
        return web.StreamResponse()
    response = web.StreamResponse(status=head.status, headers=CIMultiDict(head.headers))
    if head.length is None:
        response.enable_chunked_encoding()
    else:
        response.content_length = head.length
    return response


async def write(request: web.BaseRequest, response: web.StreamResponse, head: Head | None, data: bytes) -> None:
    """One write: a chunk of the answer, or without a head bare bytes. Raises ConnectionError if the client left."""
    if head is not None:
        await response.write(data)
        return
    transport = request.transport
    if transport is None:
        raise ConnectionResetError
    transport.write(data)


def break_off(request: web.BaseRequest, act: Break) -> None:
    """Ends the connection behind what was written."""
    transport = request.transport
    if transport is None:
        return
    if act.how == "reset":
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
