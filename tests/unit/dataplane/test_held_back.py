"""What is held back, as another target could still be the answer: for how long, and what the client gets meanwhile. Without a clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ccr_data.core.framing import Body
from ccr_data.core.http1 import LineMemory, parse_answer_head, parse_request_head
from ccr_data.core.records import Outcome, Reason, Record
from ccr_data.core.snapshot import Origin, Strategy
from ccr_data.shell.exchange import Exchange
from ccr_data.shell.relay import Relay
from support.relay import STREAM_BODY
from support.routing import POLICY, provider, snapshot
from support.upstream import EVENTS, MESSAGE, event

PING = event("ping", '{"type": "ping"}')
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % len(MESSAGE)


@dataclass
class Ends:
    """Both ends of an exchange: what the client got, and where requests went."""

    written: bytes = b""
    asked: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    is_write_paused = is_closing_after = False
    walker = None

    def write(self, data: bytes) -> None:
        self.written += data

    def exchange_ended(self, *, closes: bool, aborts: bool = False) -> None:
        assert not closes
        assert not aborts

    def take(self, origin: Origin) -> Ends:
        self.asked.append(origin.host)
        return self

    def send(self, *_: object) -> None:
        pass

    def abandon(self) -> None:
        pass

    def note(self, record: Record) -> None:
        self.records.append(record)

    def note_failure(self, *_: object) -> None:
        pass

    def note_budgets_changed(self) -> None:
        pass


def begun(version: bytes = b"1.1") -> tuple[Ends, Exchange]:
    """A request for a stream, sent to the first of two providers at the time 0."""
    known = snapshot(provider("first"), provider("second"), strategy=Strategy.ROUND_ROBIN)
    ends = Ends()
    relay = Relay(cast("Any", SimpleNamespace(current=known)), cast("Any", ends))
    relay.pool, relay.clock_s = cast("Any", ends), 0.0
    head = parse_request_head(
        b"POST /v1/messages HTTP/%b\r\nhost: localhost\r\ncontent-length: %d" % (version, len(STREAM_BODY)),
        LineMemory(of_request=True),
    )
    exchange = relay.handle(cast("Any", ends), head, STREAM_BODY, relay.check_head(head))
    assert exchange is not None
    return ends, exchange


def pass_time(exchange: Exchange, now_s: float) -> None:
    exchange._relay.clock_s = now_s
    exchange.sweep(now_s)


def hear_head(exchange: Exchange, lines: bytes, body: Body) -> None:
    exchange.head_received(parse_answer_head(lines.removesuffix(b"\r\n"), LineMemory(of_request=False)), body)


def hear(exchange: Exchange, data: bytes) -> None:
    exchange.body_received(data, [(0, len(data))])
    exchange.flush()


def test_no_pings_come_before_an_answer_that_is_no_stream() -> None:
    """The client asked for a stream and gets what the provider made of that, at the latest after the silence bound; not both in one."""
    ends, exchange = begun()
    hear_head(exchange, JSON, Body.LENGTH)
    hear(exchange, MESSAGE[:9])
    assert ends.written == b""
    pass_time(exchange, POLICY.silence_bound_s + 1)
    assert ends.written.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
    assert ends.written.endswith(b"\r\n\r\n" + MESSAGE[:9])
    pass_time(exchange, 3 * POLICY.silence_bound_s)
    hear(exchange, MESSAGE[9:])
    exchange.answer_ended()
    assert ends.written.endswith(b"\r\n\r\n" + MESSAGE)
    assert ends.asked == ["first"]


@pytest.mark.parametrize("silent", [False, True])
def test_a_stream_that_pings_before_its_content_is_not_silent(*, silent: bool) -> None:
    """`timeouts.idle` is the time between two bytes of an answer, also where none of them has gone to the client yet."""
    ends, exchange = begun()
    idle_s = exchange._target.provider.timeouts.idle_s
    hear_head(exchange, STREAM, Body.UNTIL_CLOSE)
    hear(exchange, EVENTS[0])
    for n in range(1, 5):
        pass_time(exchange, n * 0.6 * idle_s)
        if not silent:
            hear(exchange, PING)
    assert ends.asked == (["first", "second"] if silent else ["first"])
    if silent:
        assert exchange.record.attempts[0].reason is Reason.IDLE_TIMEOUT
        return
    hear(exchange, b"".join(EVENTS[1:]))
    exchange.answer_ended()
    assert ends.written.count(PING) >= 4
    assert ends.written.endswith(b"0\r\n\r\n")
    assert ends.records == [exchange.record]
    assert [attempt.reason for attempt in exchange.record.attempts] == [None]


def test_what_is_encoded_is_not_held_back() -> None:
    """It may be a stream, whose events nobody here can see."""
    ends, exchange = begun()
    hear_head(exchange, STREAM + b"content-encoding: gzip\r\n", Body.UNTIL_CLOSE)
    hear(exchange, b"packed")
    assert b"packed" in ends.written


def test_a_client_that_takes_no_pings_gets_what_is_held_back() -> None:
    """One of HTTP/1.0, which knows no chunks: at the silence bound it gets the beginning of the stream rather than nothing."""
    ends, exchange = begun(b"1.0")
    hear_head(exchange, STREAM, Body.UNTIL_CLOSE)
    hear(exchange, EVENTS[0])
    assert ends.written == b""
    pass_time(exchange, POLICY.silence_bound_s + 1)
    assert ends.written.endswith(b"\r\n\r\n" + EVENTS[0])


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_stream_that_breaks_off_behind_its_last_event_is_whole_however_that_was_read(left: int) -> None:
    """A read may end between the last two newlines: then the next one brings the other alone."""
    ends, exchange = begun()
    hear_head(exchange, STREAM, Body.UNTIL_CLOSE)
    whole = b"".join(EVENTS)
    for piece in filter(None, (whole[: len(whole) - left], whole[len(whole) - left :])):
        hear(exchange, piece)
    exchange.answer_broken(is_stale=False)
    assert b"event: error" not in ends.written
    assert ends.written.endswith(b"\r\n0\r\n\r\n")
    assert exchange.record.outcome is Outcome.SERVED
