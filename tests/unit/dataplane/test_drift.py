"""Names that this version does not know are seen, whatever is around them; values never are."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from ccr_data.core.drift import BETAS, MAX_BODY_BYTES, MAX_NAMES, NamingTap, UnknownName, unknown_in_request
from ccr_data.core.records import Tokens
from ccr_data.core.sse import UsageTap
from ccr_data.shell.drift import Sentinel
from hypothesis import given
from hypothesis import strategies as st

AGENT = b"User-Agent: claude-cli/2.1.329 (external, sdk-cli)"
STREAM = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":5,"output_tokens":1}}}\n\n'
    b'event: content_block_delta\ndata: {"delta":{"text":"event: secret_word\\n\\nevent: other_word\\n"}}\n\n'
    b"event: brand_new\ndata: {}\n\n"
    b"event:tight_new\r\ndata: {}\r\n\r\n"
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":9}}\n\nevent: message_stop\ndata: {}\n\n'
)


def seen(*lines: bytes, body: object = None) -> set[tuple[str, str]]:
    text = b"" if body is None else json.dumps(body).encode()
    return {(one.kind, one.name) for one in unknown_in_request(lines, text)}


def test_new_names_are_told_with_the_clients_version() -> None:
    found = unknown_in_request(
        [AGENT, b"anthropic-beta: claude-code-20250219,brand-new-2027-01-31", b"X-Brand-New: a value"],
        b'{"model":"m","brand_new":{"nested":"a value"},"messages":[]}',
    )
    assert found == [
        UnknownName("beta", "brand-new-2027-01-31", "claude-cli/2.1.329"),
        UnknownName("header", "x-brand-new", "claude-cli/2.1.329"),
        UnknownName("body_key", "brand_new", "claude-cli/2.1.329"),
    ]


def test_what_claude_code_sends_today_is_known() -> None:
    """Headers and body as measured: docs/providers/claude-code.md."""
    betas = b"anthropic-beta: " + ",".join(sorted(BETAS)).encode()
    headers = [b"Accept: application/json", b"x-app: cli", b"X-Stainless-Lang: js", b"X-Claude-Code-Session-Id: x"]
    body = {
        "model": "m",
        "max_tokens": 1,
        "messages": [],
        "system": [],
        "thinking": {},
        "context_management": {},
        "stream": True,
    }
    assert not seen(AGENT, betas, *headers, body=body)


@pytest.mark.parametrize(
    "line",
    [
        b"anthropic-beta: sk-ant-api03-AAAABBBBCCCC",
        b"anthropic-beta: please read my diary",
        b"anthropic-beta: c2VjcmV0-2025-01-01-AAAA",
        b"x-a1b2c3d4e5f6a7b8c9: 1",
        b"X-App my secret",
        b"",
    ],
)
def test_what_looks_like_a_value_is_no_name(line: bytes) -> None:
    assert not seen(line)


@pytest.mark.parametrize(
    "key", ["sk-ant-api03-AAAA", "my diary", "9c1185a5c5e9fc54612808977ee8f548b2258d31", "Größe", ""]
)
def test_a_key_of_the_body_that_looks_like_a_value_is_no_name(key: str) -> None:
    assert not seen(body={key: 1})


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"{", b"\xff", b'{"a":' * 2000, b'{"brand_new":"' + b"x" * MAX_BODY_BYTES + b'"}']
)
def test_odd_and_huge_bodies_are_nobodys_business(body: bytes) -> None:
    assert not unknown_in_request([AGENT], body)


def test_a_crowd_of_names_is_bounded() -> None:
    assert len(seen(body={f"{'abcdefghij'[n // 10]}{'abcdefghij'[n % 10]}_x": n for n in range(100)})) == MAX_NAMES


@given(cuts=st.lists(st.integers(0, len(STREAM))))
def test_events_are_named_however_the_stream_was_cut_and_usage_is_the_same(cuts: list[int]) -> None:
    """Text that speaks of events is not one: it is in one line, with its line ends escaped."""
    names: set[str] = set()
    plain, naming = UsageTap(Tokens()), NamingTap(Tokens(), names)
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(edges):
        plain.feed(STREAM, start, end)
        naming.feed(STREAM, start, end)
    assert names == {"brand_new", "tight_new"}
    assert (vars(naming.tokens), naming.has_ended) == (vars(plain.tokens), plain.has_ended)
    assert naming.tokens.output == 9


def test_one_request_and_one_stream_at_a_time() -> None:
    sentinel = Sentinel()
    sentinel.take([AGENT, b"x-brand-new: 1"], b"{}")
    sentinel.tap(Tokens(), "zai").feed(STREAM, 0, len(STREAM))
    assert not sentinel.wants_request
    assert not sentinel.wants_stream
    assert sentinel.look() == [
        UnknownName("header", "x-brand-new", "claude-cli/2.1.329"),
        UnknownName("event_type", "brand_new", "zai"),
        UnknownName("event_type", "tight_new", "zai"),
    ]
    assert sentinel.wants_request
    assert sentinel.wants_stream
    assert sentinel.look() == []
