"""AWS's event streams: what a client gets is what Anthropic would have sent, however the bytes were cut and whatever befell them."""

from __future__ import annotations

import base64
import json
from itertools import pairwise

import pytest
from botocore.eventstream import EventStreamBuffer
from ccr_data.core.eventstream import EventStream
from hypothesis import given
from hypothesis import strategies as st
from support.event_stream import Header, chunk_frame, error_frame, exception_frame, frame, text

# docs/providers/bedrock.md, test vectors.
FRAME_1 = bytes.fromhex(
    "000000870000004b87ea2bf30b3a6576656e742d747970650700056368756e6b0d3a636f6e74656e742d747970650700106170706c69636174696f6e"
    "2f6a736f6e0d3a6d6573736167652d747970650700056576656e747b226279746573223a2265794a306558426c496a6f696257567a6332466e5a5639"
    "7a64473977496e303d227dba48ab22"
)
FRAME_2 = bytes.fromhex(
    "00000090000000618e91a9b70f3a657863657074696f6e2d747970650700137468726f74746c696e67457863657074696f6e0d3a636f6e74656e742d"
    "747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d74797065070009657863657074696f6e7b226d657373616765223a"
    "22546f6f206d616e79207265717565737473227de67f8005"
)
EVENTS: list[dict[str, object]] = [
    {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 7, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 'é😀\n"} \u2028'}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"type":"x"'}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
]


def raw(event: dict[str, object]) -> bytes:
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def sse(event: dict[str, object]) -> bytes:
    return f"event: {event['type']}\n".encode() + b"data: " + raw(event) + b"\n\n"


STREAM = b"".join(chunk_frame(raw(event), "abcdef"[:n]) for n, event in enumerate(EVENTS))
AS_ANTHROPIC = b"".join(map(sse, EVENTS))


def read(stream: EventStream, data: bytes, cuts: list[int]) -> bytes:
    edges = [0, *sorted(cuts), len(data)]
    return b"".join(stream.feed(data[start:end]) for start, end in pairwise(edges))


def errors(out: bytes) -> list[dict[str, str]]:
    return [
        json.loads(part.partition(b"data: ")[2])["error"]
        for part in out.split(b"\n\n")
        if part.startswith(b"event: error\n")
    ]


def test_the_published_frames() -> None:
    """The checksums are those that AWS's own library makes."""
    stream = EventStream()

    assert stream.feed(FRAME_1) == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    assert errors(stream.feed(FRAME_2)) == [{"type": "rate_limit_error", "message": "Too many requests"}]
    assert chunk_frame(b'{"type":"message_stop"}') == FRAME_1
    assert exception_frame("throttlingException", "Too many requests").endswith(FRAME_2[-4:])


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_are_anthropics_however_the_stream_was_cut(cuts: list[int]) -> None:
    """A client cannot tell which cloud answered."""
    stream = EventStream()

    assert read(stream, STREAM, cuts) == AS_ANTHROPIC
    assert stream.is_whole


def test_a_stream_that_comes_byte_by_byte() -> None:
    """The finest cut there is, and each event goes on with its last byte."""
    stream = EventStream()
    out = [stream.feed(STREAM[at : at + 1]) for at in range(len(STREAM))]

    assert b"".join(out) == AS_ANTHROPIC
    assert [piece for piece in out if piece] == list(map(sse, EVENTS))


@given(
    at=st.integers(0, len(STREAM) - 1), flip=st.integers(1, 255), cuts=st.lists(st.integers(0, len(STREAM)), max_size=5)
)
def test_a_damaged_byte_ends_the_stream_after_the_events_before_it(at: int, flip: int, cuts: list[int]) -> None:
    """What is passed on was sent by the provider, down to the last bit."""
    damaged = bytearray(STREAM)
    damaged[at] ^= flip
    stream = EventStream()
    out = read(stream, bytes(damaged), cuts)

    assert AS_ANTHROPIC.startswith(out)
    assert len(out) < len(AS_ANTHROPIC)
    assert not stream.is_whole
    assert stream.feed(STREAM) == b"" or not stream.damage


@given(end=st.integers(0, len(STREAM) - 1), cuts=st.lists(st.integers(0, len(STREAM)), max_size=5))
def test_a_stream_that_was_cut_off_is_not_whole(end: int, cuts: list[int]) -> None:
    """An answer that lacks its end must not look like one."""
    stream = EventStream()
    out = read(stream, STREAM[:end], [min(cut, end) for cut in cuts])

    assert AS_ANTHROPIC.startswith(out)
    assert not stream.is_whole


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("internalServerException", "api_error"),
        ("modelStreamErrorException", "api_error"),
        ("validationException", "invalid_request_error"),
        ("throttlingException", "rate_limit_error"),
        ("modelTimeoutException", "timeout_error"),
        ("serviceUnavailableException", "overloaded_error"),
        ("somethingNewException", "api_error"),
    ],
)
@pytest.mark.parametrize("make", [exception_frame, error_frame])
def test_each_failure_is_an_error_event_and_the_last(make: object, name: str, kind: str) -> None:
    """Claude Code repeats a request by the error's type."""
    assert callable(make)
    stream = EventStream()
    out = stream.feed(chunk_frame(raw(EVENTS[0])) + make(name, "It broke in account 123456789012") + STREAM)

    assert errors(out) == [{"type": kind, "message": "It broke in account ***"}]
    assert out.startswith(sse(EVENTS[0]))
    assert out.count(b"event: ") == 2
    assert stream.is_whole
    assert stream.feed(STREAM) == b""


def test_bedrocks_own_figures_do_not_reach_the_client() -> None:
    """Anthropic's message_stop has nothing but its type."""
    metrics = {"inputTokenCount": 9, "outputTokenCount": 5, "invocationLatency": 77, "firstByteLatency": 9}
    stop = {"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}
    stream = EventStream()

    assert stream.feed(chunk_frame(raw({"amazon-bedrock-invocationMetrics": metrics}))) == b""
    assert stream.feed(chunk_frame(raw(stop))) == sse({"type": "message_stop"})
    assert stream.is_whole


def test_text_that_speaks_of_the_figures_stays() -> None:
    """Only a message_stop is changed."""
    event = {**EVENTS[3], "note": "amazon-bedrock-invocationMetrics"}

    assert EventStream().feed(chunk_frame(raw(event))) == sse(event)


def test_events_over_several_lines_become_one() -> None:
    """A newline between tokens would end the data of a server-sent event."""
    out = EventStream().feed(chunk_frame(b'{\r\n "type": "content_block_stop",\n "index": 0\n}'))

    assert out.count(b"\n") == 3
    assert json.loads(out.partition(b"data: ")[2]) == {"type": "content_block_stop", "index": 0}


@pytest.mark.parametrize(
    "broken",
    [
        chunk_frame(b"not JSON"),
        frame([text(":event-type", "chunk"), text(":message-type", "event")], b'{"bytes":"?"}'),
        frame([text(":event-type", "chunk"), text(":message-type", "event")], b"[]"),
        frame([(":message-type", 99, b"")], b"{}"),
        frame([(":message-type", 7, b"\xff\xff")], b"{}"),
        b"\xff" * 64,
    ],
)
def test_what_is_no_event_stream_breaks_it(broken: bytes) -> None:
    """Guessing would only hide what happened."""
    stream = EventStream()
    stream.feed(broken)

    assert stream.damage
    assert not stream.is_whole


def test_lengths_that_the_format_forbids_are_not_waited_for() -> None:
    """Memory for one event is bounded."""
    payload = b"x" * (25_165_824 + 1)
    stream = EventStream()
    stream.feed(frame([text(":message-type", "event")], payload)[:64])

    assert stream.damage


HEADER = st.one_of(
    st.tuples(st.just(0), st.just(b"")),
    st.tuples(st.just(1), st.just(b"")),
    st.tuples(st.just(2), st.binary(min_size=1, max_size=1)),
    st.tuples(st.just(3), st.binary(min_size=2, max_size=2)),
    st.tuples(st.just(4), st.binary(min_size=4, max_size=4)),
    st.tuples(st.just(5), st.binary(min_size=8, max_size=8)),
    st.tuples(st.just(6), st.binary(max_size=9).map(lambda data: len(data).to_bytes(2) + data)),
    st.tuples(st.just(8), st.binary(min_size=8, max_size=8)),
    st.tuples(st.just(9), st.binary(min_size=16, max_size=16)),
)
NAMES = st.text("abcdefghijk-", min_size=1, max_size=9)


@given(more=st.dictionaries(NAMES, HEADER, max_size=5), texts=st.dictionaries(NAMES, st.text(max_size=9), max_size=3))
def test_frames_are_read_as_aws_reads_them(more: dict[str, tuple[int, bytes]], texts: dict[str, str]) -> None:
    """Headers of every type may come; botocore finds the same event behind them."""
    headers: list[Header] = [(name, kind, value) for name, (kind, value) in more.items() if name not in texts]
    headers += [text(name, value) for name, value in texts.items()]
    headers += [text(":event-type", "chunk"), text(":message-type", "event")]
    data = frame(headers, json.dumps({"bytes": base64.b64encode(raw(EVENTS[3])).decode()}).encode())
    theirs = EventStreamBuffer()
    theirs.add_data(data)
    payload = json.loads(next(theirs).payload)

    assert base64.b64decode(payload["bytes"]) == raw(EVENTS[3])
    assert EventStream().feed(data) == sse(EVENTS[3])
