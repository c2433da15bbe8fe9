"""AWS event-stream frames for tests, written from the format's description and by nothing of the relay's."""

from __future__ import annotations

import base64
import json
import struct
from zlib import crc32

Header = tuple[str, int, bytes]  # name, type of the value, value as it is written
STRING = 7


def text(name: str, value: str) -> Header:
    """A header with a string."""
    data = value.encode()
    return name, STRING, struct.pack(">H", len(data)) + data


def frame(headers: list[Header], payload: bytes) -> bytes:
    """One frame."""
    block = b"".join(bytes((len(name),)) + name.encode() + bytes((kind,)) + value for name, kind, value in headers)
    prelude = struct.pack(">II", len(block) + len(payload) + 16, len(block))
    message = prelude + struct.pack(">I", crc32(prelude)) + block + payload
    return message + struct.pack(">I", crc32(message))


def chunk_frame(event: bytes, padding: str = "") -> bytes:
    """One of Anthropic's events, as Bedrock wraps it."""
    payload = {"bytes": base64.b64encode(event).decode(), **({"p": padding} if padding else {})}
    return frame(
        [
            text(":event-type", "chunk"),
            text(":content-type", "application/json"),
            text(":message-type", "event"),
        ],
        json.dumps(payload, separators=(",", ":")).encode(),
    )


def exception_frame(name: str, message: str) -> bytes:
    """The end of a stream that failed."""
    return frame(
        [
            text(":exception-type", name),
            text(":content-type", "application/json"),
            text(":message-type", "exception"),
        ],
        json.dumps({"message": message}, separators=(",", ":")).encode(),
    )


def error_frame(code: str, message: str) -> bytes:
    """The other end of a stream that failed."""
    return frame([text(":message-type", "error"), text(":error-code", code), text(":error-message", message)], b"")
