"""How an answer's body travels to the client, and the bytes around it. Pure.

A chunked body passes verbatim, its chunk sizes included; the relay only reads them to find the end. Where the relay has to end
a broken stream by itself, it first completes what the upstream had promised, so that the client gets well-formed HTTP and SSE.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping

from ccr_data.core.http1 import AnswerHead, ChunkWalker

MAX_FILLER_BYTES = 1 << 20
MAX_RANGES = 8  # pieces of payload in one read that are looked at one by one
SHORT = 4  # bytes of payload that may be no more than the rest of an event's end
MOST_JOINED = 4096
LAST_CHUNK = b"0\r\n\r\n"
# Gives a half-received event a name that every client ignores, and ends it (SSE: the last `event` field counts).
_DISCARD = b"event: incomplete\n\n"
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_RESULTS_URL = re.compile(rb'("results_url"\s*:\s*")https?://[^/"\\]+')


class Body(enum.Enum):
    """How an answer's body is delimited."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    UNTIL_CLOSE = 3
    CONVERTED = 4  # made of what the upstream said: pieces of payload only


class Passing(enum.Enum):
    """What the client gets of it."""

    VERBATIM = 0  # the bytes as they came
    RECHUNKED = 1  # payload in chunks of the relay's
    PAYLOAD = 2  # payload only; the end is the connection's end


# As globals: reaching an enum's member through its class takes ten times as long on Python 3.11.
NO_BODY, LENGTH, CHUNKED, UNTIL_CLOSE, CONVERTED = Body
VERBATIM, RECHUNKED, PAYLOAD = Passing


def body_of(head: AnswerHead, method: bytes) -> Body:
    """How the body after this head is delimited (RFC 9112, section 6.3)."""
    if method == b"HEAD" or head.status in (204, 304):
        return NO_BODY
    if head.is_chunked:
        return CHUNKED
    if head.content_length is not None:
        return LENGTH if head.content_length else NO_BODY
    return UNTIL_CLOSE


def passing_of(body: Body, *, is_http10: bool, has_begun: bool) -> Passing:
    """How to pass a body on; `has_begun` if the client already gets a chunked answer of the relay's own."""
    if body is CHUNKED and is_http10:
        return PAYLOAD
    if has_begun:
        return VERBATIM if body is CHUNKED else RECHUNKED
    if body is UNTIL_CLOSE or body is CONVERTED:
        return PAYLOAD if is_http10 else RECHUNKED
    return VERBATIM


def client_head(head: AnswerHead, body: Body, passing: Passing, own_lines: bytes, *, closes: bool) -> bytes:
    """The head of the answer: the upstream's end-to-end headers as they came, the relay's lines, and the framing."""
    status_line = head.status_line if head.status_line.startswith(b"HTTP/1.1") else b"HTTP/1.1" + head.status_line[8:]
    if passing is RECHUNKED or (passing is VERBATIM and body is CHUNKED):
        framing = b"transfer-encoding: chunked\r\n"
    elif head.content_length is not None and passing is VERBATIM:
        framing = b"content-length: %d\r\n" % head.content_length
    else:
        framing = b""
    return b"%b\r\n%b%b%b%b%b\r\n" % (
        status_line,
        b"\r\n".join(head.lines),
        b"\r\n" if head.lines else b"",
        own_lines,
        framing,
        b"connection: close\r\n" if closes else b"",
    )


def chunk(payload: bytes) -> bytes:
    """One chunk of the chunked coding."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def gathered(data: bytes, ranges: list[tuple[int, int]]) -> tuple[bytes, list[tuple[int, int]]]:
    """The same payload, in one piece if it comes in many: looking at each would take a hostile provider's reader far."""
    if len(ranges) <= MAX_RANGES:
        return data, ranges
    payload = b"".join([data[start:end] for start, end in ranges])
    return payload, [(0, len(payload))]


def is_event_end(data: bytes, end: int) -> bool:
    """Whether an event ends exactly at `end`; events may then be added."""
    return data.endswith(_EVENT_ENDS, max(0, end - 4), end)


def joined(data: bytes, end: int, piece: bytes) -> tuple[bytes, int]:
    """A short piece of payload behind what came before it, `data[:end]`, or the end of that: events may end in two pieces."""
    ending = data[0 if end <= MOST_JOINED else end - SHORT : end] + piece
    return ending, len(ending)


def discarding(data: bytes, end: int) -> bytes:
    """What follows `data[:end]`, the payload so far or the end of it, so that no client acts upon half an event."""
    if not end or is_event_end(data, end):
        return b""
    return _DISCARD if data[end - 1] == 0x0A else b"\n" + _DISCARD


def broken_end(text: bytes, passing: Passing, walker: ChunkWalker | None) -> bytes | None:
    """What to send after a stream that broke off, so that `text` is the end of its payload; None: nothing can be sent."""
    if passing is PAYLOAD:
        return text
    if passing is RECHUNKED:
        return chunk(text) + LAST_CHUNK
    begun = walker.completed() if walker is not None else None  # else a content-length promised other bytes
    if begun is None:
        return None
    line, missing = begun
    if missing > MAX_FILLER_BYTES:
        return None
    if not missing:
        return line + chunk(text) + LAST_CHUNK
    if missing >= len(text):
        return line + text + b"\n" * (missing - len(text)) + b"\r\n" + LAST_CHUNK
    return line + text[:missing] + b"\r\n" + chunk(text[missing:]) + LAST_CHUNK


def missing_end(passing: Passing, walker: ChunkWalker | None) -> bytes | None:
    """What is missing of the framing behind the last byte of payload; None: more payload was promised."""
    if passing is PAYLOAD:
        return b""
    if passing is RECHUNKED:
        return LAST_CHUNK
    return walker.missing_end() if walker is not None else None


def own_base_url(lines: Iterable[bytes], special: Mapping[bytes, bytes]) -> bytes:
    """Scheme and host by which the client reached the relay.

    Behind a proxy that ends TLS the scheme is what `X-Forwarded-Proto` says, if that is http or https.
    """
    scheme = b"http"
    for line in lines:
        if line[:18].lower() == b"x-forwarded-proto:":
            said = line[18:].split(b",")[0].strip().lower()
            scheme = said if said in (b"http", b"https") else b"http"
            break
    return scheme + b"://" + special.get(b"host", b"localhost")


def with_own_results_url(body: bytes, base_url: bytes) -> bytes:
    """A batch (or list of batches) whose `results_url` leads back to the relay.

    The official SDKs follow that URL as it stands: unchanged, the client's relay key would go straight to the provider.
    """
    return _RESULTS_URL.sub(lambda match: match[1] + base_url, body)
