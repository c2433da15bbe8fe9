"""Which requests is a route for, besides their model?

Pure. A body is never parsed for this: what is asked of it is searched for in its bytes, and only if a route asks. JSON text inside
a string is escaped and never taken for the real thing; an object that looks the same deeper inside (in a tool's input) is.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from ccr_data.core.patterns import fits, fits_any

BYTES_PER_TOKEN = (
    3.5  # of a whole request body, JSON and all; a first request of Claude Code has 49 KB, some 14,000 tokens
)

_THINKING = re.compile(rb'"thinking"\s*:\s*\{[^{}]*"type"\s*:\s*"(enabled|adaptive|disabled)"')
_TYPE = (b'"type":', b'"type": ')
_TOOLS = re.compile(rb'"tools"\s*:\s*\[\s*\{')


class RequestClass(enum.Enum):
    """What a request is for, as far as it shows."""

    MAIN = "main"
    SUBAGENT = "subagent"
    BACKGROUND = "background"  # it offers no tools: titles, summaries
    COUNT_TOKENS = "count_tokens"


# Looked up as globals: reaching an enum's member through its class takes ten times as long on Python 3.11.
MAIN, SUBAGENT, BACKGROUND, COUNT_TOKENS = RequestClass


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold of a request: all that is set."""

    clients: tuple[str, ...] = ()  # patterns
    subagent: bool | None = None
    classes: frozenset[RequestClass] = frozenset()
    thinking: bool | None = None
    min_input_tokens: int | None = None
    max_input_tokens: int | None = None
    images: bool | None = None
    documents: bool | None = None
    tools: bool | None = None
    headers: tuple[tuple[str, str], ...] = ()  # lower-case name, pattern of the value

    @property
    def is_aside(self) -> bool:
        """Whether they hold only of what is asked beside a conversation (titles, summaries), never of the conversation itself."""
        return bool(self.classes) and self.classes.isdisjoint((MAIN, SUBAGENT))


class Asked:
    """What a request shows of itself."""

    def __init__(self, client: str, is_subagent: bool, counts_tokens: bool, lines: list[bytes], body: bytes) -> None:
        self.client = client
        self.is_subagent = is_subagent
        self.counts_tokens = counts_tokens
        self.lines = lines  # its header lines, without those that are never passed on
        self.body = body


def holds(of: Conditions, asked: Asked) -> bool:
    """Whether a request meets the conditions. What costs least is asked first."""
    if of.subagent is not None and of.subagent != asked.is_subagent:
        return False
    if of.clients and not fits_any(of.clients, asked.client):
        return False
    if of.min_input_tokens is not None and estimated_tokens(asked.body) < of.min_input_tokens:
        return False
    if of.max_input_tokens is not None and estimated_tokens(asked.body) > of.max_input_tokens:
        return False
    return (
        all(_has_header(asked.lines, name, pattern) for name, pattern in of.headers)
        and (of.thinking is None or of.thinking == wants_thinking(asked.body))
        and (not of.classes or class_of(asked) in of.classes)
        and (of.tools is None or of.tools == offers_tools(asked.body))
        and (of.images is None or of.images == has_block(asked.body, b"image"))
        and (of.documents is None or of.documents == has_block(asked.body, b"document"))
    )


def estimated_tokens(body: bytes) -> int:
    """Input tokens of a request, roughly. Images and documents count by their base64, which is far too much."""
    return int(len(body) / BYTES_PER_TOKEN)


def class_of(asked: Asked) -> RequestClass:
    """What a request is for."""
    if asked.counts_tokens:
        return COUNT_TOKENS
    if asked.is_subagent:
        return SUBAGENT
    return MAIN if offers_tools(asked.body) else BACKGROUND


def wants_thinking(body: bytes) -> bool:
    """Whether `thinking` asks for it. Searched from behind: Claude Code puts it after the messages."""
    at = len(body)
    while (at := body.rfind(b'"thinking"', 0, at)) >= 0:
        found = _THINKING.match(body, at)
        if found is not None:
            return found[1] != b"disabled"
    return False


def offers_tools(body: bytes) -> bool:
    """Whether `tools` has at least one."""
    at = -1
    while (at := body.find(b'"tools"', at + 1)) >= 0:
        if _TOOLS.match(body, at):
            return True
    return False


def has_block(body: bytes, kind: bytes) -> bool:
    """Whether there is a content block of this kind, as JSON is commonly written. The rare word is searched for, not `type`."""
    word = b'"%b"' % kind
    at = -1
    while (at := body.find(word, at + 1)) >= 0:
        if body[max(0, at - 8) : at].endswith(_TYPE):
            return True
    return False


def _has_header(lines: list[bytes], name: str, pattern: str) -> bool:
    prefix = name.encode() + b":"
    return any(
        fits(pattern, line[len(prefix) :].strip(b" \t").decode("latin-1"))
        for line in lines
        if line[: len(prefix)].lower() == prefix
    )
