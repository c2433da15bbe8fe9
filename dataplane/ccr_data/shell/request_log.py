"""One line for each finished request, made in batches off the request path.

JSON for programs, or a short coloured line for people. Whatever a client sent (model, session, …) is escaped, so
that it can neither fake a line nor steer a terminal, and masked where it looks like a credential. Never text of a
conversation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from ccr_data.core.records import AttemptRecord, Endpoint, Outcome, Reason, Record, sound_text
from ccr_data.shell.logs import Log, LogOutput, clock_time, json_safe, masked, word

_MOST_TOLD = 16  # of what was passed over
_TROUBLE = (Outcome.FAILED, Outcome.BROKEN)

log = Log("requests")


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


_K = TypeVar("_K")
MOST_ENTRIES = 1024  # of a memo
MOST_CHARS = 2048  # of what one keeps


class Memo(dict[_K, str]):
    """Text that is made of the same again and again. Bounded, also in the length of what is kept."""

    def __init__(self, make: Callable[[_K], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: _K) -> str:
        made = self._make(key)
        if len(made) <= MOST_CHARS:
            if len(self) >= MOST_ENTRIES:
                self.clear()
            self[key] = made
        return made


def quote(text: str) -> str:
    """A JSON string: credentials masked, and escaped whatever a terminal may obey."""
    if text.isascii() and text.isidentifier():  # letters, digits and underscores, as in most providers' ids
        return f'"{text}"'
    return json_safe(masked(json.dumps(sound_text(text), ensure_ascii=False)))


def json_lines(records: Sequence[Record], node: str) -> bytes:
    """The lines of some requests for programs. Names of fields are an interface; new ones are added at the end."""
    return "".join([_line(record, node) for record in records]).encode()


def _line(record: Record, node: str) -> str:
    """A template, what repeats made once: that takes half the time of the fastest encoder."""
    attempts, tokens = record.attempts, record.tokens
    ended_s = record.started_at_s + record.total_s + 0.0005  # rounds to milliseconds
    second = int(ended_s)
    return (
        f'{{"ts":"{_seconds[second]}{_FRACTIONS[int((ended_s - second) * 1000)]}{_beginnings[record.outcome, node]}'
        f',"request_id":{quote(record.request_id)},"client":{_quoted[record.client]}'
        f',"session":{_quoted[record.session]},"agent":{_quoted[record.agent]}{_ways[_way(record)]}'
        f',"attempts":[{_attempt(attempts[0]) if len(attempts) == 1 else ",".join(map(_attempt, attempts))}]'
        f',"first_byte_ms":{record.first_byte_s * 1e3:.1f},"total_ms":{record.total_s * 1e3:.1f}'
        f',"overhead_ms":{record.overhead_s * 1e3:.3f}'
        f',"input_tokens":{tokens.input},"output_tokens":{tokens.output},"cache_read_tokens":{tokens.cache_read}'
        f',"cache_write_5m_tokens":{tokens.cache_write_5m},"cache_write_1h_tokens":{tokens.cache_write_1h}'
        f',"thinking_tokens":{tokens.thinking},"request_bytes":{record.request_bytes}'
        f',"answer_bytes":{record.answer_bytes},"snapshot_version":{record.snapshot_version}'
        f',"upstream_request_id":{quote(record.upstream_request_id)},"warning":{_quoted[record.warning]}'
        f"{_passed_over(record)}{_queued(record) if record.queued_s else ''}}}\n"
    )


def _passed_over(record: Record) -> str:
    """Only where something was passed over before the first attempt."""
    decision = record.decision
    if decision is None or not decision.passed_over:
        return ""
    words = ",".join([quote(f"{what}: {why}") for what, why in decision.passed_over[:_MOST_TOLD]])
    return f',"passed_over":[{words}]'


def _queued(record: Record) -> str:
    """Only where it waited for room."""
    return f',"queued_ms":{record.queued_s * 1e3:.1f}'


def _beginning(of: tuple[Outcome, str]) -> str:
    outcome, node = of
    level = "warning" if outcome in _TROUBLE else "info"
    return f'","level":"{level}","logger":"ccr.data.requests","event":"request_done","node":{quote(node)}'


_Way = tuple[Endpoint, str, str, str, str, str, bool, int, Outcome]


def _way(record: Record) -> _Way:
    """Which way a request went: few are different from each other."""
    model_used = provider = key_label = ""
    if record.attempts:
        last = record.attempts[-1]
        model_used, provider, key_label = last.model, last.provider, last.key_label
    asked, route, streamed = record.model_asked, record.route, record.streamed
    return record.endpoint, asked, model_used, route, provider, key_label, streamed, record.status, record.outcome


def _way_text(way: _Way) -> str:
    endpoint, model_asked, model_used, route, provider, key_label, streamed, status, outcome = way
    return (
        f',"endpoint":"{endpoint}","model_asked":{quote(model_asked)},"model_used":{quote(model_used)}'
        f',"route":{quote(route)},"provider":{quote(provider)},"key_label":{quote(key_label)}'
        f',"streamed":{"true" if streamed else "false"},"status":{status},"outcome":"{outcome}"'
    )


def _attempt(attempt: AttemptRecord) -> str:
    where = _wheres[attempt.provider, attempt.key_label, attempt.model, attempt.status, attempt.reason]
    first_byte_ms, total_ms = attempt.first_byte_s * 1e3, attempt.total_s * 1e3
    return f'{where},"first_byte_ms":{first_byte_ms:.1f},"total_ms":{total_ms:.1f}}}'


def _where(of: tuple[str, str, str, int, Reason | None]) -> str:
    provider, key_label, model, status, reason = of
    return (
        f'{{"provider":{quote(provider)},"key_label":{quote(key_label)},"model":{quote(model)}'
        f',"status":{status},"reason":"{reason or ""}"'
    )


def _second(unix_time: int) -> str:
    return f"{datetime.fromtimestamp(unix_time, UTC):%Y-%m-%dT%H:%M:%S}"


_quoted = Memo(quote)
_seconds = Memo(_second)
_beginnings = Memo(_beginning)
_ways = Memo(_way_text)
_wheres = Memo(_where)
_FRACTIONS = [f".{millis:03}000Z" if millis else "Z" for millis in range(1000)]


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
    if record.queued_s:
        words.append(f"queued {record.queued_s:.1f} s")
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
