"""One line for each finished request, made in batches off the request path.

JSON for programs, or a short coloured line for people. Whatever a client sent (model, session, …) is escaped, so
that it can neither fake a line nor steer a terminal, and masked where it looks like a credential. Never text of a
conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from ccr_data.core.batches import sound
from ccr_data.core.records import AttemptRecord, Outcome, Record
from ccr_data.shell.logs import Log, LogOutput, clock_time, json_safe, masked, may_hold_secret, word

_TROUBLE = (Outcome.FAILED, Outcome.BROKEN)

log = Log("requests")


class AttemptLine(msgspec.Struct):
    """One upstream request, in a request's line."""

    provider: str
    key_label: str
    model: str
    status: int
    reason: str  # empty: it was the answer
    first_byte_ms: float
    total_ms: float


class RequestLine(msgspec.Struct):
    """One finished request as programs read it. Names of fields are an interface; new ones are added at the end."""

    ts: datetime  # when it ended
    level: str
    logger: str
    event: str
    node: str
    request_id: str
    client: str
    session: str
    agent: str
    endpoint: str
    model_asked: str
    model_used: str
    route: str
    provider: str
    key_label: str
    streamed: bool
    status: int
    outcome: str
    attempts: list[AttemptLine]
    first_byte_ms: float
    total_ms: float
    overhead_ms: float
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    thinking_tokens: int
    request_bytes: int
    answer_bytes: int
    snapshot_version: int
    upstream_request_id: str
    warning: str


_encode_lines = msgspec.json.Encoder().encode_lines


class RequestLog:
    """Writes the lines of finished requests to the process's log."""

    def __init__(self, output: LogOutput, node: str) -> None:
        self._output = output
        self._node = node

    def note(self, records: Sequence[Record]) -> None:
        """Write a line for each. Never raises: a request that cannot be told is counted, not the end of the node."""
        try:
            lines = self._lines(records)
        except Exception:  # records hold what others sent
            log.exception("request_line_failed", requests=len(records))
            return
        self._output.writer.put(lines, len(records))

    def _lines(self, records: Sequence[Record]) -> bytes:
        if self._output.is_text:
            return "".join([text_line(record, self._output.has_colours) for record in records]).encode(errors="replace")
        return json_lines(records, self._node)


def json_lines(records: Sequence[Record], node: str) -> bytes:
    """The lines of some requests for programs."""
    try:
        lines = _encode_lines([_line(record, node) for record in records])
    except UnicodeEncodeError:
        lines = _encode_lines([_line(sound(record), node) for record in records])
    if lines.isascii() and b"\x7f" not in lines and not any(may_hold_secret(_foreign_text(one)) for one in records):
        return lines
    return json_safe(masked(lines.decode())).encode()


def _foreign_text(record: Record) -> str:
    """All that did not come from the configuration. Searching only this saves 2 µs a line."""
    return f"{record.model_asked} {record.session} {record.agent} {record.upstream_request_id} {record.warning}"


def _line(record: Record, node: str) -> RequestLine:
    attempts = record.attempts
    last = attempts[-1] if attempts else None
    tokens = record.tokens
    return RequestLine(
        datetime.fromtimestamp(round(record.started_at_s + record.total_s, 3), UTC),
        "warning" if record.outcome in _TROUBLE else "info",
        "ccr.data.requests",
        "request_done",
        node,
        record.request_id,
        record.client,
        record.session,
        record.agent,
        record.endpoint.value,
        record.model_asked,
        last.model if last else "",
        record.route,
        last.provider if last else "",
        last.key_label if last else "",
        record.streamed,
        record.status,
        record.outcome.value,
        [_attempt(attempt) for attempt in attempts],
        round(record.first_byte_s * 1e3, 1),
        round(record.total_s * 1e3, 1),
        round(record.overhead_s * 1e3, 3),
        tokens.input,
        tokens.output,
        tokens.cache_read,
        tokens.cache_write_5m,
        tokens.cache_write_1h,
        tokens.thinking,
        record.request_bytes,
        record.answer_bytes,
        record.snapshot_version,
        record.upstream_request_id,
        record.warning,
    )


def _attempt(attempt: AttemptRecord) -> AttemptLine:
    return AttemptLine(
        attempt.provider,
        attempt.key_label,
        attempt.model,
        attempt.status,
        attempt.reason.value if attempt.reason else "",
        round(attempt.first_byte_s * 1e3, 1),
        round(attempt.total_s * 1e3, 1),
    )


_RESET, _DIM, _RED, _GREEN, _YELLOW = "\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"


def text_line(record: Record, has_colours: bool = False) -> str:
    """The line of a request for people: time, status, model, where it went, how long it took, tokens, what was odd."""
    last = record.attempts[-1] if record.attempts else None
    words = [
        clock_time(record.started_at_s + record.total_s),
        _painted(str(record.status or "---"), _colour(record), has_colours),
        f"{record.endpoint.value:12}",
        word(record.model_asked) if record.model_asked else "-",
    ]
    if last is not None:
        renamed = f" {word(last.model)}" if last.model != record.model_asked else ""
        key = f"/{word(last.key_label)}" if last.key_label else ""
        words.append(f"→ {word(last.provider)}{key}{renamed}")
    words.append(_duration(record))
    tokens = record.tokens
    if tokens.input or tokens.output or tokens.cache_read:
        cached = f"+{tokens.cache_read} cached" if tokens.cache_read else ""
        words.append(f"{tokens.input}{cached}→{tokens.output} tokens")
    passed_over = [f"{word(one.provider)}: {one.reason.value}" for one in record.attempts if one.reason is not None]
    if passed_over:
        words.append(f"[{', '.join(passed_over)}]")
    if record.outcome is not Outcome.SERVED:
        words.append(record.outcome.value)
    if record.warning:
        words.append(f"warning={word(record.warning)}")
    words.append(_painted(word(record.request_id), _DIM, has_colours))
    return masked(" ".join(words)) + "\n"


def _duration(record: Record) -> str:
    total = f"{record.total_s:.1f} s" if record.total_s >= 1 else f"{record.total_s * 1e3:.0f} ms"
    return f"{record.first_byte_s * 1e3:.0f} ms/{total}" if record.streamed and record.first_byte_s else total


def _colour(record: Record) -> str:
    if record.outcome in _TROUBLE:
        return _RED
    return _GREEN if record.outcome is Outcome.SERVED and 200 <= record.status < 300 else _YELLOW


def _painted(text: str, colour: str, has_colours: bool) -> str:
    return f"{colour}{text}{_RESET}" if has_colours else text
