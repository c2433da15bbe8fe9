"""A second attempt beside a slow first one: the first to begin with content is the answer. And attempts that take too long."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from support.client import Answer as ClientAnswer
from support.relay import AUTH, BODY, STREAM_BODY, client, config, provider, records, relaying
from support.serving import Relay, until
from support.upstream import (
    EVENTS,
    MESSAGE,
    RawUpstream,
    Request,
    Wire,
    error_answer,
    event,
    json_answer,
    stream_answer,
)

WHOLE = b"".join(EVENTS)
PING = EVENTS[2]


@pytest.fixture(scope="module")
def upstreams() -> Iterator[list[RawUpstream]]:
    with RawUpstream() as first, RawUpstream() as second:
        yield [first, second]


@pytest.fixture(scope="module")
def relay(upstreams: list[RawUpstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    routing = {"hedging": {"after": "100ms", "max_share": "100%"}, "cooldown": "0s"}
    providers = [
        provider(name, one.url, priority=at) for at, (name, one) in enumerate(zip("ab", upstreams, strict=True))
    ]
    with relaying(tmp_path_factory.mktemp("hedged"), config(*providers, routing=routing)) as relay:
        yield relay


@pytest.fixture(autouse=True)
def _fresh(upstreams: list[RawUpstream]) -> Iterator[None]:
    for upstream in upstreams:
        upstream.requests.clear()
        upstream.answer = stream_answer
    yield
    assert not any(upstream.failures for upstream in upstreams)


def ask(relay: Relay, body: bytes = STREAM_BODY, *lines: str) -> tuple[ClientAnswer, list[tuple[str, str]]]:
    """The answer, and each attempt's provider and reason."""
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", body, AUTH, *lines)
    request_id = answer.header("x-cc-relay-request-id")

    def found() -> list[dict[str, object]]:
        return [record for record in records(relay) if record["request_id"] == request_id]

    until(found, "the record")
    attempts = found()[0]["attempts"]
    assert isinstance(attempts, list)
    return answer, [(one["provider"], one["reason"]) for one in attempts]


def at_once(request: Request, wire: Wire) -> None:
    """The whole stream in one piece, so that its winning and its end are one read."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    wire.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(WHOLE), WHOLE))


def test_a_silent_first_attempt_is_overtaken(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """The client gets all of the second's stream, and the first provider is hung up on at once."""
    gone_s: list[float] = []
    upstreams[0].answer = lambda request, wire: gone_s.append(wire.wait_gone(10))
    upstreams[1].answer = at_once
    answer, attempts = ask(relay)

    assert (answer.status, answer.body, answer.header("x-cc-relay-provider")) == (200, WHOLE, "b")
    assert attempts == [("a", "hedged"), ("b", "")]
    until(lambda: gone_s, "the first provider to be left")
    assert ask(relay, BODY.replace(b"}]", b"}]", 1))  # the relay is in order


def test_a_first_attempt_that_is_faster_after_all_stays(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """The rival has only begun."""
    has_rival, gone_s = threading.Event(), list[float]()

    def first(request: Request, wire: Wire) -> None:
        assert has_rival.wait(10)
        stream_answer(request, wire)

    def rival(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        wire.chunk(EVENTS[0])
        has_rival.set()
        gone_s.append(wire.wait_gone(10))

    upstreams[0].answer, upstreams[1].answer = first, rival
    answer, attempts = ask(relay)

    assert (answer.body, answer.header("x-cc-relay-provider")) == (WHOLE, "a")
    assert attempts == [("a", ""), ("b", "hedged")]
    until(lambda: gone_s, "the rival to be left")


@pytest.mark.parametrize("has_begun", [False, True], ids=["no head", "head"])
def test_when_the_first_fails_its_rival_goes_on(relay: Relay, upstreams: list[RawUpstream], *, has_begun: bool) -> None:
    """Nothing is asked twice."""
    has_rival, may_go = threading.Event(), threading.Event()

    def first(request: Request, wire: Wire) -> None:
        assert has_rival.wait(10)
        wire.send(error_answer("529 Overloaded", "overloaded_error", "connection: close"))
        wire.wait_gone(10)  # the relay has read it
        may_go.set()

    def rival(request: Request, wire: Wire) -> None:
        if has_begun:
            wire.begin_stream()
            wire.chunk(EVENTS[0])
        has_rival.set()
        assert may_go.wait(10)
        if has_begun:
            for piece in EVENTS[1:]:
                wire.chunk(piece)
            wire.end_stream()
        else:
            stream_answer(request, wire)

    upstreams[0].answer, upstreams[1].answer = first, rival
    answer, attempts = ask(relay)

    assert (answer.status, answer.body) == (200, WHOLE)
    assert attempts == [("a", "overloaded"), ("b", "")]
    assert len(upstreams[1].requests) == 1


@pytest.mark.parametrize("status", ["429 Too Many", "500 Error", "400 Bad"])
def test_a_rival_that_fails_is_not_noticed(relay: Relay, upstreams: list[RawUpstream], status: str) -> None:
    """The first goes on."""
    has_failed = threading.Event()

    def rival(request: Request, wire: Wire) -> None:
        wire.send(error_answer(status, "api_error"))
        has_failed.set()

    def first(request: Request, wire: Wire) -> None:
        assert has_failed.wait(10)
        stream_answer(request, wire)

    upstreams[0].answer, upstreams[1].answer = first, rival
    answer, attempts = ask(relay)

    assert (answer.status, answer.body) == (200, WHOLE)
    assert [name for name, _ in attempts] == ["a", "b"]
    assert attempts[0][1] == ""


def test_a_client_that_leaves_ends_both(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """At once."""
    gone_s: list[float] = []
    for upstream in upstreams:
        upstream.answer = lambda request, wire: gone_s.append(wire.wait_gone(10))
    with client(relay) as connection:
        connection.request("POST", "/v1/messages", STREAM_BODY, AUTH)
        until(lambda: all(upstream.requests for upstream in upstreams), "both attempts")
    until(lambda: len(gone_s) == 2, "both to be left")


def test_a_session_with_a_home_and_answers_in_one_piece_are_sent_once(
    relay: Relay, upstreams: list[RawUpstream]
) -> None:
    """Elsewhere its cache is cold; and an answer in one piece is always late."""
    session = "x-claude-code-session-id: 0a0a0a0a-0000-0000-0000-00000000000a"
    assert ask(relay, STREAM_BODY, session)[1] == [("a", "")]
    may_go = threading.Event()
    timer = threading.Timer(0.6, may_go.set)

    def slow(request: Request, wire: Wire) -> None:
        assert may_go.wait(10)
        if b'"stream":true' in request.body:
            stream_answer(request, wire)
        else:
            wire.send(json_answer(MESSAGE))

    upstreams[0].answer = slow
    timer.start()
    assert ask(relay, STREAM_BODY, session)[1] == [("a", "")]
    may_go.clear()
    timer = threading.Timer(0.6, may_go.set)
    timer.start()
    assert ask(relay, BODY)[1] == [("a", "")]
    assert not upstreams[1].requests


def test_an_attempt_that_takes_too_long_in_all(
    upstreams: list[RawUpstream], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Before content it moves on; after that the stream ends properly."""

    def trickle(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        if b"early" not in request.body:
            wire.chunk(EVENTS[0])
            wire.chunk(EVENTS[1])
        for _ in range(100):
            wire.chunk(PING)
            with contextlib.suppress(TimeoutError):
                wire.wait_gone(0.1)
                return

    upstreams[0].answer, upstreams[1].answer = trickle, stream_answer
    providers = [provider("a", upstreams[0].url, timeouts={"total": "1s"}), provider("b", upstreams[1].url, priority=1)]
    with relaying(tmp_path_factory.mktemp("long"), config(*providers, routing={"cooldown": "0s"})) as relay:
        answer, attempts = ask(relay, STREAM_BODY.replace(b'"hi"', b'"early"'))
        assert (answer.body, attempts) == (WHOLE, [("a", "total_timeout"), ("b", "")])
        answer, attempts = ask(relay)
        assert attempts == [("a", "total_timeout")]
        assert answer.body.startswith(EVENTS[0] + EVENTS[1] + PING)
        assert b"the stream of provider a did not finish in time" in answer.body.rpartition(b"event: error")[2]


@pytest.mark.parametrize("limited", ["a", "b"])
def test_who_takes_over_has_a_time_of_its_own(
    upstreams: list[RawUpstream], tmp_path_factory: pytest.TempPathFactory, limited: str
) -> None:
    """How long the attempt that it overtook might have taken says nothing of it."""

    def trickle(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        wire.chunk(b"".join(EVENTS[:2]))
        for _ in range(20):
            with contextlib.suppress(TimeoutError):
                wire.wait_gone(0.1)
                return
            wire.chunk(PING)
        wire.chunk(b"".join(EVENTS[2:]))
        wire.end_stream()

    upstreams[0].answer, upstreams[1].answer = (lambda request, wire: wire.wait_gone(10)), trickle
    providers = [
        provider(name, one.url, priority=at, **({"timeouts": {"total": "1s"}} if name == limited else {}))
        for at, (name, one) in enumerate(zip("ab", upstreams, strict=True))
    ]
    routing = {"hedging": {"after": "100ms", "max_share": "100%"}, "cooldown": "0s"}
    with relaying(tmp_path_factory.mktemp("own"), config(*providers, routing=routing)) as relay:
        answer, attempts = ask(relay)

    if limited == "a":
        assert attempts == [("a", "hedged"), ("b", "")]
        assert answer.body.endswith(EVENTS[-1])
    else:
        assert attempts == [("a", "hedged"), ("b", "total_timeout")]
        assert b"the stream of provider b did not finish in time" in answer.body.rpartition(b"event: error")[2]


@pytest.mark.parametrize("is_in_stream", [False, True], ids=["head", "event"])
def test_a_rival_that_is_the_last_attempt_goes_on_as_well(
    upstreams: list[RawUpstream], tmp_path_factory: pytest.TempPathFactory, *, is_in_stream: bool
) -> None:
    """No further attempt may begin, but this one has."""
    has_rival, may_go = threading.Event(), threading.Event()

    def first(request: Request, wire: Wire) -> None:
        assert has_rival.wait(10)
        if is_in_stream:
            wire.begin_stream()
            wire.chunk(event("error", '{"type":"error","error":{"type":"overloaded_error","message":"no"}}'))
        else:
            wire.send(error_answer("529 Overloaded", "overloaded_error", "connection: close"))
        wire.wait_gone(10)
        may_go.set()

    def rival(request: Request, wire: Wire) -> None:
        has_rival.set()
        if may_go.wait(10):
            stream_answer(request, wire)

    upstreams[0].answer, upstreams[1].answer = first, rival
    providers = [
        provider(name, one.url, priority=at) for at, (name, one) in enumerate(zip("ab", upstreams, strict=True))
    ]
    routing = {"hedging": {"after": "100ms", "max_share": "100%"}, "cooldown": "0s", "max_attempts": 2}
    with relaying(tmp_path_factory.mktemp("last"), config(*providers, routing=routing)) as relay:
        answer, attempts = ask(relay)

    assert (answer.status, answer.body) == (200, WHOLE)
    assert attempts == [("a", "stream_error" if is_in_stream else "overloaded"), ("b", "")]
