"""AWS's event-stream format → Anthropic's server-sent events, while it passes. Pure, incremental, bounded.

A frame is: total length, length of the headers, CRC-32 of these 8 bytes, headers, payload, CRC-32 of everything before; all numbers
are 4 bytes, big-endian. A Bedrock stream has frames of the event type `chunk`, whose payload is `{"bytes": base64}` of one
Anthropic event, and ends early in an exception or error frame. Bedrock's model of the service allows nothing else; what is unknown is
skipped, as its own clients do.
"""

from __future__ import annotations

import re
from zlib import crc32

import msgspec

from ccr_data.core.cloud_errors import in_stream
from ccr_data.core.errors import UpstreamBroken

MAX_HEADERS_BYTES = 131_072
MAX_PAYLOAD_BYTES = 25_165_824
MAX_REMEMBERED_HEADERS = 64
_PRELUDE_BYTES = 12
_OVERHEAD_BYTES = 16
# Value types: their lengths in bytes, for those that have a fixed one (true, false, integers, a time, a UUID).
_FIXED_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _STRING = 6, 7
_TYPE_FIRST = re.compile(rb'\{"type":"([a-z_]{1,64})"[,}]')  # as Anthropic writes its events
_METRICS = b"amazon-bedrock-invocationMetrics"

Headers = dict[str, str]


class _Chunk(msgspec.Struct):
    payload: bytes = msgspec.field(name="bytes", default=b"")  # msgspec reads base64 by itself


class _Typed(msgspec.Struct):
    type: str | None = None


class _Exception(msgspec.Struct):
    message: str = ""


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_typed = msgspec.json.Decoder(_Typed).decode
_decode_exception = msgspec.json.Decoder(_Exception).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class EventStream:
    """One stream on its way through."""

    __slots__ = ("_known", "_missing", "_pieces", "damage", "has_ended", "has_failed")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a frame that is not complete
        self._missing = _PRELUDE_BYTES  # so many bytes, before there is anything to read
        self._known: dict[bytes, Headers] = {}  # header blocks, which are nearly all the same
        self.has_ended = False  # message_stop has passed
        self.has_failed = False  # an error event has passed: it is the last
        self.damage = ""  # what is wrong with the bytes; nothing is read after it

    @property
    def is_whole(self) -> bool:
        """Whether the stream may end here."""
        return self.has_failed or (self.has_ended and not self._pieces and not self.damage)

    def feed(self, data: bytes) -> bytes:
        """The events that this piece completes, as server-sent events; empty if it completes none. May set `damage`."""
        if self.has_failed or self.damage or not data:
            return b""
        self._missing -= len(data)
        if self._missing > 0 or self._pieces:
            self._pieces.append(data)
            if self._missing > 0:
                return b""
            data = b"".join(self._pieces)
            self._pieces.clear()
        events: list[bytes] = []
        try:
            self._read(data, events)
        except UpstreamBroken as damage:
            self.damage = str(damage)
        return events[0] if len(events) == 1 else b"".join(events)

    def _read(self, data: bytes, events: list[bytes]) -> None:
        """Read every frame that is complete; keep the rest. Raises UpstreamBroken, with the events before the damage in `events`."""
        at, size = 0, len(data)
        view = memoryview(data)
        self._missing = 0
        while size - at >= _PRELUDE_BYTES:
            total = int.from_bytes(view[at : at + 4])
            headers_bytes = int.from_bytes(view[at + 4 : at + 8])
            if crc32(view[at : at + 8]) != int.from_bytes(view[at + 8 : at + 12]):
                raise UpstreamBroken("an event's prelude does not fit its checksum")
            payload_bytes = total - headers_bytes - _OVERHEAD_BYTES
            if headers_bytes > MAX_HEADERS_BYTES or not 0 <= payload_bytes <= MAX_PAYLOAD_BYTES:
                raise UpstreamBroken("an event is larger than the format allows")
            end = at + total
            if end > size:
                self._missing = end - size
                break
            if crc32(view[at : end - 4]) != int.from_bytes(view[end - 4 : end]):
                raise UpstreamBroken("an event does not fit its checksum")
            payload_at = at + _PRELUDE_BYTES + headers_bytes
            event = self._event(self._headers(data[at + _PRELUDE_BYTES : payload_at]), view[payload_at : end - 4])
            if event:
                events.append(event)
            at = end
        if not self._missing:
            self._missing = _PRELUDE_BYTES - (size - at)
        if at < size:
            self._pieces.append(data[at:])

    def _headers(self, block: bytes) -> Headers:
        known = self._known.get(block)
        if known is None:
            known = headers_of(block)
            if len(self._known) < MAX_REMEMBERED_HEADERS and len(block) <= 1024:
                self._known[block] = known
        return known

    def _event(self, headers: Headers, payload: memoryview) -> bytes:
        if self.has_failed:
            return b""
        kind = headers.get(":message-type", "event")
        if kind == "event":
            return self._chunk(payload) if headers.get(":event-type") == "chunk" else b""
        if kind == "exception":
            return self._failure(headers.get(":exception-type", ""), _message(payload))
        if kind == "error":
            return self._failure(headers.get(":error-code", ""), headers.get(":error-message", ""))
        return b""

    def _chunk(self, payload: memoryview) -> bytes:
        """One of Anthropic's events. Empty for what has no type: Bedrock's own figures."""
        try:
            event = _decode_chunk(payload).payload
            first = _TYPE_FIRST.match(event)
            name = first[1] if first else (_decode_typed(event).type or "").encode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UpstreamBroken("an event is not what it should be") from None
        if not name:
            return b""
        if name == b"message_stop":
            self.has_ended = True
            event = _without_metrics(event)
        elif name == b"error":
            self.has_failed = True
        if b"\n" in event or b"\r" in event:  # between tokens; inside of strings they are escaped
            event = event.replace(b"\r", b" ").replace(b"\n", b" ")
            name = name.replace(b"\r", b" ").replace(b"\n", b" ")
        return b"event: %b\ndata: %b\n\n" % (name, event)

    def _failure(self, name: str, message: str) -> bytes:
        self.has_failed = True
        error = in_stream(name, message)
        body = msgspec.json.encode({"type": "error", "error": {"type": error.kind, "message": error.message}})
        return b"event: error\ndata: %b\n\n" % body


def _without_metrics(event: bytes) -> bytes:
    """A message_stop as Anthropic writes it: what Bedrock measured may ride on it."""
    if _METRICS not in event:
        return event
    fields = _decode_fields(event)
    fields.pop(_METRICS.decode(), None)
    return msgspec.json.encode(fields)


def _message(payload: memoryview) -> str:
    try:
        return _decode_exception(payload).message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def headers_of(block: bytes) -> Headers:
    """The headers of a frame that are strings; those of other types are passed over. Raises UpstreamBroken."""
    found: Headers = {}
    at, size = 0, len(block)
    while at < size:
        name_end = at + 1 + block[at]
        name = block[at + 1 : name_end]
        kind = block[name_end] if name_end < size else -1
        at = name_end + 1
        if kind in (_BYTES, _STRING):
            length = int.from_bytes(block[at : at + 2])
            at += 2
        elif kind in _FIXED_BYTES:
            length = _FIXED_BYTES[kind]
        else:
            raise UpstreamBroken("an event's headers are malformed")
        value = block[at : at + length]
        at += length
        if at > size:
            raise UpstreamBroken("an event's headers are malformed")
        if kind == _STRING:
            found[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return found
