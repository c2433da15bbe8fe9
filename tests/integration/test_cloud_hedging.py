"""Two attempts at two clouds: whichever has content first is the answer, in Anthropic's words, also if it is taken over half read."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from support.client import Answer as ClientAnswer
from support.event_stream import chunk_frame, exception_frame
from support.relay import AUTH, STREAM_BODY, client, config, provider, records, relaying
from support.serving import until
from support.upstream import EVENTS, Answer, RawUpstream, Request, Wire

FRAMES = [chunk_frame(event.partition(b"data: ")[2].strip()) for event in EVENTS]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n\r\n"


def asked(directory: Path, first: Answer, second: Answer) -> tuple[ClientAnswer, list[tuple[str, str]]]:
    """The answer of a relay with two clouds that answer so, and each attempt's provider and reason."""
    with RawUpstream(first) as a, RawUpstream(second) as b:
        clouds = [provider(name, one.url, type="bedrock", region="us-east-1") for name, one in (("a", a), ("b", b))]
        routing = {"hedging": {"after": "100ms", "max_share": "100%"}, "cooldown": "0s"}
        with relaying(directory, config(*clouds, routing=routing)) as relay, client(relay) as connection:
            body = STREAM_BODY.replace(b"claude-test", b"us.anthropic.claude-x")
            answer = connection.ask("POST", "/v1/messages", body, AUTH)
            until(lambda: records(relay), "the record")
            record: dict[str, Any] = records(relay)[0]
        assert not a.failures + b.failures
    return answer, [(one["provider"], one["reason"]) for one in record["attempts"]]


def whole(request: Request, wire: Wire) -> None:
    wire.send(HEAD)
    data = b"".join(FRAMES)
    for at in range(0, len(data), 61):
        wire.chunk(data[at : at + 61])
    wire.end_stream()


@pytest.mark.parametrize("has_begun", [False, True], ids=["silent", "prelude"])
def test_a_slow_cloud_is_overtaken_by_another(tmp_path: Path, *, has_begun: bool) -> None:
    """Nothing of the slow one's beginning is mixed into the answer."""

    def slow(request: Request, wire: Wire) -> None:
        if has_begun:
            wire.send(HEAD)
            wire.chunk(FRAMES[0] + FRAMES[2][:9])
        wire.wait_gone(10)

    answer, attempts = asked(tmp_path, slow, whole)

    assert (answer.status, answer.body) == (200, b"".join(EVENTS))
    assert attempts == [("a", "hedged"), ("b", "")]


def test_a_cloud_that_fails_hands_over_to_one_that_is_half_read(tmp_path: Path) -> None:
    """The second one's stream stands in the middle of a frame at that moment."""
    may_fail, may_go_on = threading.Event(), threading.Event()

    def failing(request: Request, wire: Wire) -> None:
        wire.send(HEAD)
        wire.chunk(FRAMES[0])
        assert may_fail.wait(10)
        wire.chunk(exception_frame("serviceUnavailableException", "no"))
        wire.wait_gone(10)
        may_go_on.set()  # the relay has hung up: it has taken the other one over

    def other(request: Request, wire: Wire) -> None:
        wire.send(HEAD)
        wire.chunk(FRAMES[0] + FRAMES[1][:30])
        may_fail.set()
        assert may_go_on.wait(10)
        wire.chunk(FRAMES[1][30:] + b"".join(FRAMES[2:]))
        wire.end_stream()

    answer, attempts = asked(tmp_path, failing, other)

    assert (answer.status, answer.body) == (200, b"".join(EVENTS))
    assert attempts == [("a", "stream_error"), ("b", "")]
