"""A name for a conversation whose client gives it none: a hash of how it begins.

Pure. Later turns repeat the beginning, but not to the byte: cache markers move on, and a lone text block may turn into a string. So
the first turn's texts count, and nothing else. Looked for within a bounded part of the body; a client whose `messages` come later
than that, behind a long prompt, gets no name.
"""

from __future__ import annotations

import re
from hashlib import blake2b

SEARCHED_BYTES = 32 << 10
READ_BYTES = 4096
NAMING_BYTES = 2048  # of the texts; what else there may be among them must fit into the rest
_MESSAGES = re.compile(rb"\s*:\s*\[\s*\{")
_CONTENT = re.compile(rb'"content"\s*:\s*(?=["\[])')
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}:]', re.DOTALL)  # a string may be cut off by the end


def name_of(body: bytes, client: str) -> str:
    """The conversation's name, the same for all its turns; empty if it cannot be told."""
    texts = b"\0".join(first_texts(body))[:NAMING_BYTES]
    if not texts:
        return ""
    digest = blake2b(client.encode("utf-8", "replace") + b"\0" + texts, digest_size=12)
    return f"conv_{digest.hexdigest()}"


def is_continued(body: bytes) -> bool:
    """Whether there may be an answer in it already. Equal questions of different people are no conversation yet."""
    return len(body) > SEARCHED_BYTES or b'"assistant"' in body


def first_texts(body: bytes) -> list[bytes]:
    """The texts of the first turn as they are written in JSON, without quotation marks; the last may be cut short."""
    at = body.find(b'"messages"', 0, SEARCHED_BYTES)
    while at >= 0 and _MESSAGES.match(body, at + 10) is None:  # the name of a tool's parameter, say
        at = body.find(b'"messages"', at + 10, SEARCHED_BYTES)
    content = _CONTENT.search(body, at, at + READ_BYTES) if at >= 0 else None
    if content is None:
        return []
    start, end = content.end(), content.end() + READ_BYTES
    if body[start] == 0x22:
        written = _TOKEN.match(body, start, end)
        return [_inside(written[0])] if written else []
    return _texts(body, start, end)


def _texts(body: bytes, start: int, end: int) -> list[bytes]:
    """The texts among the blocks of the array at `start`."""
    texts: list[bytes] = []
    depth, last, is_value = 0, b"", False
    for token in _TOKEN.finditer(body, start, end):
        found = token[0]
        if found == b":":
            is_value = True
        elif found in b"[{":
            depth += 1
            is_value = False
        elif found in b"]}":
            depth -= 1
            if not depth:
                break
        else:
            if is_value and last == b'"text"' and depth == 2:
                texts.append(_inside(found))
            last = found
            is_value = False
    return texts


def _inside(written: bytes) -> bytes:
    return written[1:-1] if len(written) > 1 and written.endswith(b'"') else written[1:]
