"""AWS's event-stream framing, as the service writes it. Pure."""

import base64
import json
from zlib import crc32

from ccr_demo.clouds.face import dumped

_STRING = 7


def frame(payload: bytes, **headers: str) -> bytes:
    """One frame. Names of headers are written with `_` for `-`, and get a `:` before them."""
    block = b"".join(_header(f":{name.replace('_', '-')}", value) for name, value in headers.items())
    prelude = (16 + len(block) + len(payload)).to_bytes(4, "big") + len(block).to_bytes(4, "big")
    head = prelude + crc32(prelude).to_bytes(4, "big")
    return head + block + payload + crc32(head + block + payload).to_bytes(4, "big")


def chunk(event: bytes) -> bytes:
    """One Anthropic event, as JSON, in a frame; padded so that its length says less, as Bedrock does it."""
    padding = "abcdefghijklmnopqrstuvwxyz"[: len(event) % 26 + 1]
    payload = dumped({"bytes": base64.b64encode(event).decode(), "p": padding})
    return frame(payload, event_type="chunk", content_type="application/json", message_type="event")


def exception(name: str, message: str) -> bytes:
    """The frame that a stream ends with if it fails; `name` in lower camel case."""
    payload = dumped({"message": message})
    return frame(payload, exception_type=name, content_type="application/json", message_type="exception")


def error(code: str, message: str) -> bytes:
    """An error that the service's model does not know."""
    return frame(b"", message_type="error", error_code=code, error_message=message)


def data_of(event: bytes) -> bytes:
    """The JSON of one server-sent event, as it stands."""
    return b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))


def corrupted(data: bytes) -> bytes:
    """The frame with one bit of its payload wrong."""
    return data[:-8] + bytes([data[-8] ^ 0x10]) + data[-7:]


def type_of(event: bytes) -> str:
    """The type of an event's JSON."""
    try:
        return str(json.loads(event).get("type", ""))
    except ValueError:
        return ""


def _header(name: str, value: str) -> bytes:
    text = value.encode()
    return bytes([len(name)]) + name.encode() + bytes([_STRING]) + len(text).to_bytes(2, "big") + text
