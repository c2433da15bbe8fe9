"""The tap reads usage from a stream as it passes, whatever the stream looks like and however it is cut."""

from __future__ import annotations

import json
from itertools import pairwise

from ccr_data.core.budget import Budget
from ccr_data.core.records import MAX_COUNT, Tokens
from ccr_data.core.sse import Beginning, UsageTap, note_json_usage
from hypothesis import given, settings
from hypothesis import strategies as st


def event(name: str, payload: object, end: str = "\n", space: str = " ") -> bytes:
    data = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    return f"event:{space}{name}{end}data:{space}{data}{end}{end}".encode()


def stream(end: str, space: str, texts: list[str], numbers: tuple[int, int, int, int]) -> bytes:
    given_input, read, written, output = numbers
    start = {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "usage": {
                "input_tokens": given_input,
                "cache_read_input_tokens": read,
                "cache_creation_input_tokens": written,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": written},
                "output_tokens": 1,
            },
        },
    }
    parts = [event("message_start", start, end, space), event("ping", {"type": "ping"}, end, space)]
    parts += [
        event(
            "content_block_delta",
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}},
            end,
            space,
        )
        for text in texts
    ]
    delta = {"type": "message_delta", "usage": {"output_tokens": output, "cache_creation_input_tokens": written}}
    parts += [event("message_delta", delta, end, space), event("message_stop", {"type": "message_stop"}, end, space)]
    return b"".join(parts)


TRICKS = st.sampled_from(
    [
        "event: message_delta",
        'event: message_delta\ndata: {"usage":{"output_tokens":666}}',
        "\n\nevent: message_stop",
        "é😀",
        "event: mess",
    ]
)


@settings(max_examples=400)
@given(
    end=st.sampled_from(["\n", "\r\n"]),
    space=st.sampled_from([" ", ""]),
    texts=st.lists(TRICKS | st.text(max_size=20), max_size=5),
    numbers=st.tuples(*[st.integers(0, 10**9)] * 4),
    cuts=st.lists(st.integers(0, 2000), max_size=30),
    comment=st.booleans(),
)
def test_usage_does_not_depend_on_how_the_stream_was_cut(
    end: str, space: str, texts: list[str], numbers: tuple[int, int, int, int], cuts: list[int], *, comment: bool
) -> None:
    """A provider may flush anywhere, even inside a character; text that speaks of events is only text."""
    wire = (b": keep-alive\n\n" if comment else b"") + stream(end, space, texts, numbers)
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    tokens = Tokens()
    tap = UsageTap(tokens)
    for start, stop in pairwise(edges):
        tap.feed(b"<" + wire[start:stop] + b">", 1, 1 + stop - start)

    given_input, read, written, output = numbers
    assert (tokens.input, tokens.cache_read, tokens.cache_write_1h, tokens.cache_write_5m, tokens.output) == (
        given_input,
        read,
        written,
        0,
        output,
    )
    assert tap.has_ended


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_any_bytes_leave_the_tap_alive(pieces: list[bytes]) -> None:
    """The tap must never break a stream that it only looks at."""
    tap = UsageTap(Tokens())
    for piece in pieces:
        tap.feed(piece, 0, len(piece))
    note_json_usage(Tokens(), b"".join(pieces))


def test_a_message_start_that_never_ends_is_not_kept() -> None:
    """Memory per stream is bounded, whatever the provider sends."""
    tap = UsageTap(Tokens())
    tap.feed(b"event: message_start\ndata: ", 0, 27)
    for _ in range(100):
        tap.feed(b"x" * 10_000, 0, 10_000)

    assert len(tap._event) + len(tap._carry) <= 256 << 10


@given(end=st.sampled_from(["\n", "\r\n"]), cuts=st.lists(st.integers(0, 400), max_size=10), is_error=st.booleans())
def test_the_verdict_on_a_beginning_does_not_depend_on_cuts(end: str, cuts: list[int], *, is_error: bool) -> None:
    """An error event before any content moves on; content commits; a prelude decides nothing."""
    prelude = event("message_start", {"type": "message_start"}, end) + event("ping", {"type": "ping"}, end)
    last = event("error", {"type": "error"}, end) if is_error else event("content_block_start", {}, end)
    edges = [0, *sorted(min(cut, len(prelude)) for cut in cuts), len(prelude)]
    beginning = Beginning()
    for start, stop in pairwise(edges):
        beginning.feed(prelude[start:stop])

    assert beginning.verdict is None
    assert beginning.feed(last) == ("error" if is_error else "content")


def test_a_stream_without_event_names_commits_at_once() -> None:
    """Nothing could be told from a prelude there."""
    assert Beginning().feed(b'data: {"type":"message_start"}\n\n') == "content"


@given(st.sampled_from(["input_tokens", "output_tokens", "cache_creation_input_tokens"]), st.integers(1, 4_000))
def test_a_number_beyond_reason_is_no_report(kind: str, digits: int) -> None:
    """A provider may say anything; whoever counts with it must be able to."""
    for number in (10**digits, -(10**digits)):
        tokens, tap = Tokens(output=7), UsageTap(Tokens(output=7))
        usage = {"usage": {kind: number, "cache_read_input_tokens": 1}}
        note_json_usage(tokens, json.dumps(usage).encode())
        tap.feed(event("message_delta", usage), 0, len(event("message_delta", usage)))
        assert vars(tokens) == vars(tap.tokens)
        assert abs(number) <= MAX_COUNT or vars(tokens) == vars(Tokens(output=7))
        part = Budget(("p", "a"), "m").try_reserve(9, 1.0)
        assert part is not None
        part.settle(tokens, 2.0)
