"""The template of a request's line agrees with an encoder that is given the fields."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import msgspec
from ccr_data.core.records import AttemptRecord, Endpoint, Outcome, Reason, Record, Tokens
from ccr_data.shell.logs import masked
from ccr_data.shell.request_log import MOST_CHARS, MOST_ENTRIES, Memo, json_lines
from hypothesis import given
from hypothesis import strategies as st
from support.node_values import with_fields

NASTY = '"\\\n\r\t\x00\x1b\x7f\x9b\u2028\u202e\ufeffü\ud800/sk-eyJ'
OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]"
)  # by terminals, but for the line's end
names = st.text("abc-_/. 1") | st.text() | st.text(NASTY) | st.just("sk-ant-api03-AAAAAAAAAAAA")
seconds = st.floats(0, 100_000) | st.sampled_from([0.0, 0.00005, 0.0123, 0.25])
counts = st.integers(0, 1 << 60) | st.just(0)
attempts = st.builds(
    AttemptRecord,
    provider=names,
    key_label=names,
    scope=st.just("s"),
    model=names,
    began_s=st.just(1.0),
    status=st.integers(0, 599),
    reason=st.sampled_from([None, *Reason]),
    first_byte_s=seconds,
    total_s=seconds,
)
rest = st.fixed_dictionaries(
    {
        "session": names,
        "agent": names,
        "model_asked": names,
        "route": names,
        "streamed": st.booleans(),
        "status": st.integers(0, 599),
        "outcome": st.sampled_from(Outcome),
        "attempts": st.lists(attempts, max_size=3),
        "first_byte_s": seconds,
        "total_s": seconds,
        "overhead_s": seconds,
        "tokens": st.builds(Tokens, counts, counts, counts, counts, counts, counts),
        "request_bytes": counts,
        "answer_bytes": counts,
        "snapshot_version": counts,
        "upstream_request_id": names,
        "warning": names,
    }
)


records = st.builds(with_fields, st.builds(Record, names, st.sampled_from(Endpoint), st.floats(0, 4e9), names), rest)


def model(record: Record) -> dict[str, object]:
    """The fields of a line in their order, as a program should read them; without the time."""
    last = record.attempts[-1] if record.attempts else None
    fields = {
        "level": "warning" if record.outcome in (Outcome.FAILED, Outcome.BROKEN) else "info",
        "logger": "ccr.data.requests",
        "event": "request_done",
        "node": "laptop/worker-0",
        "request_id": record.request_id,
        "client": record.client,
        "session": record.session,
        "agent": record.agent,
        "endpoint": record.endpoint.value,
        "model_asked": record.model_asked,
        "model_used": last.model if last else "",
        "route": record.route,
        "provider": last.provider if last else "",
        "key_label": last.key_label if last else "",
        "streamed": record.streamed,
        "status": record.status,
        "outcome": record.outcome.value,
        "attempts": [
            {
                "provider": one.provider,
                "key_label": one.key_label,
                "model": one.model,
                "status": one.status,
                "reason": one.reason.value if one.reason else "",
                "first_byte_ms": round(one.first_byte_s * 1e3, 1),
                "total_ms": round(one.total_s * 1e3, 1),
            }
            for one in record.attempts
        ],
        "first_byte_ms": round(record.first_byte_s * 1e3, 1),
        "total_ms": round(record.total_s * 1e3, 1),
        "overhead_ms": round(record.overhead_s * 1e3, 3),
        "input_tokens": record.tokens.input,
        "output_tokens": record.tokens.output,
        "cache_read_tokens": record.tokens.cache_read,
        "cache_write_5m_tokens": record.tokens.cache_write_5m,
        "cache_write_1h_tokens": record.tokens.cache_write_1h,
        "thinking_tokens": record.tokens.thinking,
        "request_bytes": record.request_bytes,
        "answer_bytes": record.answer_bytes,
        "snapshot_version": record.snapshot_version,
        "upstream_request_id": record.upstream_request_id,
        "warning": record.warning,
    }
    encoded = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace").decode()
    read: dict[str, object] = msgspec.json.decode(masked(encoded))
    return read


@given(st.lists(records, max_size=4))
def test_a_line_reads_as_an_encoder_would_have_written_it(some: list[Record]) -> None:
    lines = json_lines(some, "laptop/worker-0")

    assert not OBEYED.search(lines.decode())
    read = [json.loads(line) for line in lines.splitlines()]
    assert len(read) == len(some)
    for line, record in zip(read, some, strict=True):
        at = line.pop("ts")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", at)
        ended = datetime.fromtimestamp(record.started_at_s + record.total_s, UTC)
        assert abs((datetime.fromisoformat(at) - ended).total_seconds()) < 0.000502
        expected = model(record)
        assert list(line) == list(expected)
        assert line == expected


@given(st.lists(st.integers(0, 5000), max_size=3000))
def test_a_memo_gives_what_would_be_made_and_stays_small(numbers: list[int]) -> None:
    memo = Memo[int](lambda number: "x" * number)
    for number in numbers:
        assert memo[number] == "x" * number
        assert len(memo) <= MOST_ENTRIES
    assert all(len(text) <= MOST_CHARS for text in memo.values())
