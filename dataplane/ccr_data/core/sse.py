"""Server-sent events as they pass: usage, the end, and the first event that commits an answer. Pure; never raises on odd input.

The tap costs one search per chunk. It accepts a hit only at the beginning of a line, so that text that speaks of events does not
fool it, and copies only the two kinds of event that carry usage.
"""

from __future__ import annotations

import re

import msgspec

from ccr_data.core.records import Tokens
from ccr_data.core.shapes import Usage, answer_of, event_of

MAX_EVENT_BYTES = 256 << 10  # a message_start repeats little of the request; more than this is not read
_MARK = b"event: message_"
_TIGHT_MARK = b"event:message_"
_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE_END = re.compile(rb"\r\n|\n|\r")


def note_usage(tokens: Tokens, usage: Usage) -> None:
    """Take over what a report says; counters in a stream are cumulative, so the last report counts."""
    if usage.input_tokens is not None:
        tokens.input = usage.input_tokens
    if usage.output_tokens is not None:
        tokens.output = usage.output_tokens
    if usage.cache_read_input_tokens is not None:
        tokens.cache_read = usage.cache_read_input_tokens
    if usage.cache_creation is not None:
        tokens.cache_write_5m = usage.cache_creation.ephemeral_5m_input_tokens or 0
        tokens.cache_write_1h = usage.cache_creation.ephemeral_1h_input_tokens or 0
    elif usage.cache_creation_input_tokens is not None:  # a delta repeats only the sum; the split came before
        tokens.cache_write_5m = max(0, usage.cache_creation_input_tokens - tokens.cache_write_1h)
    if usage.output_tokens_details is not None:
        tokens.thinking = usage.output_tokens_details.thinking_tokens or 0


def note_json_usage(tokens: Tokens, body: bytes) -> None:
    """Take over the usage of a whole (not streamed) answer. An odd body changes nothing."""
    try:
        answer = answer_of(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return
    if answer.usage is not None:
        note_usage(tokens, answer.usage)


class UsageTap:
    """Reads usage from a stream that passes in pieces."""

    __slots__ = ("_carry", "_event", "_line_begins", "_mark", "has_ended", "tokens")

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.has_ended = False  # message_stop was seen
        self._mark = b""  # how this server writes a message event's first line; empty until one is seen
        self._carry = b""  # the last, unfinished line, as long as it could become a mark
        self._event = b""  # an event of interest that is not complete
        self._line_begins = True  # whether the next byte begins a line

    def feed(self, data: bytes, start: int, end: int) -> None:
        """Look at `data[start:end]`."""
        if start >= end:
            return
        searched = 0  # up to here there is no blank line, but for its last bytes
        if self._event or self._carry:
            searched = len(self._event) - 3
            data = (self._event or self._carry) + data[start:end]
            start, end = 0, len(data)
            self._event = self._carry = b""
            self._line_begins = True  # both begin with a line
        mark = self._mark or self._learn_mark(data, start, end)
        pos = start
        while True:
            at = data.find(mark, pos, end)
            if at < 0:
                break
            if not (data[at - 1] in b"\r\n" if at > start else self._line_begins):
                pos = at + 1
                continue
            blank = _BLANK_LINE.search(data, max(at, searched), end)
            if blank is None:
                if end - at <= MAX_EVENT_BYTES:
                    self._event = data[at:end]
                else:
                    self._remember_line(data, at, end)
                return
            self._read(data[at : blank.start()])
            pos = blank.end()
            if pos >= end:
                self._line_begins = True
                return
            start, self._line_begins = pos, True
        self._remember_line(data, start, end)

    def _learn_mark(self, data: bytes, start: int, end: int) -> bytes:
        at = data.find(b"event:", start, end - 1)
        if at >= 0:
            self._mark = _MARK if data[at + 6] == 0x20 else _TIGHT_MARK
        return self._mark or _MARK

    def _remember_line(self, data: bytes, start: int, end: int) -> None:
        """Keep the unfinished last line if it could still become a mark."""
        line_end = max(data.rfind(b"\n", start, end), data.rfind(b"\r", start, end))
        if line_end == end - 1:
            self._line_begins = True
            return
        is_whole_line = line_end >= 0 or self._line_begins
        begin = line_end + 1 if line_end >= 0 else start
        self._line_begins = False
        if is_whole_line and end - begin < len(_MARK):
            line = data[begin:end]
            if _MARK.startswith(line) or _TIGHT_MARK.startswith(line):
                self._carry = line

    def _read(self, event: bytes) -> None:
        name, _, rest = event.partition(b"\n")
        if name.rstrip(b"\r").endswith(b"message_stop"):
            self.has_ended = True
            return
        payload = b"".join(line[5:].strip(b" ") for line in _LINE_END.split(rest) if line.startswith(b"data:"))
        try:
            decoded = event_of(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return
        if decoded.message is not None and decoded.message.usage is not None:
            note_usage(self.tokens, decoded.message.usage)
        if decoded.usage is not None:
            note_usage(self.tokens, decoded.usage)


_PRELUDE = frozenset((b"message_start", b"ping"))  # events after which another provider could still take over


class Beginning:
    """Watches the first events of a stream that is being held back.

    Verdict after `feed`: None (only a prelude so far), "content" (a meaningful event began: commit) or "error" (an error event
    before any content: another target may take over).
    """

    __slots__ = ("_is_named", "_line", "verdict")
    _MAX_LINE = 64 << 10

    def __init__(self) -> None:
        self._line = b""
        self._is_named = False  # whether the event being read has said its name
        self.verdict: str | None = None

    def feed(self, payload: bytes) -> str | None:
        """The verdict after this payload, too."""
        if self.verdict is not None:
            return self.verdict
        if b"\n" not in payload and b"\r" not in payload and not self._line.endswith(b"\r"):
            self._line += payload  # a long line in small pieces is not searched again for each
            if len(self._line) > self._MAX_LINE:
                self.verdict = "content"
            return self.verdict
        text = self._line + payload
        held = b"\r" if text.endswith(b"\r") else b""  # the LF that belongs to it may come next
        lines = _LINE_END.split(text[: len(text) - len(held)])
        self._line = lines.pop() + held
        for line in lines:
            self.verdict = self._judge(line)
            if self.verdict is not None:
                break
        if self.verdict is None and len(self._line) > self._MAX_LINE:
            self.verdict = "content"  # whatever this is, it is not the beginning of a Messages stream
        return self.verdict

    def _judge(self, line: bytes) -> str | None:
        if not line:
            self._is_named = False
        elif line.startswith(b"event:"):
            self._is_named = True
            name = line[6:].strip()
            if name == b"error":
                return "error"
            return None if name in _PRELUDE else "content"
        elif line.startswith(b"data:") and not self._is_named:
            return "content"  # a server that names no events: nothing to tell a prelude by
        return None


def ends_in_error(data: bytes, end: int) -> bool:
    """Whether the last event that begins in `data[:end]` is an error."""
    at = end
    while (at := data.rfind(b"event:", 0, at)) >= 0:
        if at == 0 or data[at - 1] in b"\r\n":
            return data[at + 6 : at + 16].split(b"\n", 1)[0].strip() == b"error"
    return False


def is_without_content(data: bytes, end: int, size: int) -> bool:
    """Whether a stream of this many payload bytes, of which these came last, is known to hold nothing meaningful."""
    return size <= end and b"content_block" not in data[:end]
