"""Before the first meaningful byte every failure moves on to the next target, and the client sees none of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.relay import AUTH, BODY, STREAM_BODY, client, config, provider, reconfigured, records, relaying
from support.serving import Relay, until
from support.upstream import (
    EVENTS,
    MESSAGE,
    Answer,
    RawUpstream,
    Request,
    Wire,
    error_answer,
    event,
    json_answer,
    stream_answer,
)


@pytest.fixture(scope="module")
def upstreams() -> Iterator[list[RawUpstream]]:
    with RawUpstream() as first, RawUpstream() as second:
        yield [first, second]


def stream_answer_or_message(request: Request, wire: Wire) -> None:
    if b'"stream":true' in request.body:
        stream_answer(request, wire)
    else:
        wire.send(json_answer(MESSAGE))


def named(model: str, body: bytes = BODY) -> bytes:
    return body.replace(b"claude-test", model.encode())


def send(*data: bytes) -> Answer:
    def answer(request: Request, wire: Wire) -> None:
        for piece in data:
            wire.send(piece)

    return answer


def reset(request: Request, wire: Wire) -> None:
    wire.reset()


def silent(request: Request, wire: Wire) -> None:
    wire.wait_gone(10)


def begin_then(*events: bytes) -> Answer:
    def answer(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        for piece in events:
            wire.chunk(piece)

    return answer


def begin_then_reset(request: Request, wire: Wire) -> None:
    wire.begin_stream()
    wire.chunk(EVENTS[0])
    wire.reset()


ERROR_EVENT = event("error", '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
FAILURES: dict[str, tuple[Answer, str]] = {
    "429": (send(error_answer("429 Too Many", "rate_limit_error", "retry-after: 9")), "rate_limited"),
    "500": (send(error_answer("500 Error", "api_error")), "server_error"),
    "502 as a page": (
        send(b"HTTP/1.1 502 Bad\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>"),
        "server_error",
    ),
    "503": (send(error_answer("503 Unavailable", "api_error")), "overloaded"),
    "504": (send(error_answer("504 Timeout", "timeout_error")), "server_error"),
    "529": (send(error_answer("529 Overloaded", "overloaded_error")), "overloaded"),
    "401": (send(error_answer("401 No", "authentication_error")), "key_refused"),
    "403": (send(error_answer("403 No", "permission_error")), "key_refused"),
    "reset": (reset, "broken"),
    "not HTTP": (send(b"SSH-2.0-OpenSSH\r\n\r\n"), "broken"),
    "half a head": (lambda request, wire: (wire.send(b"HTTP/1.1 200 OK\r\ncontent-"), wire.reset()), "broken"),
    "silence": (silent, "first_byte_timeout"),
    "a 500 whose body never ends": (send(b"HTTP/1.1 500 Error\r\ncontent-length: 100\r\n\r\nabc"), "server_error"),
}
STREAM_FAILURES: dict[str, tuple[Answer, str]] = {
    "an error event first": (begin_then(ERROR_EVENT), "stream_error"),
    "an error event after the prelude": (begin_then(*EVENTS[:1], EVENTS[2], ERROR_EVENT), "stream_error"),
    "a reset after the prelude": (begin_then_reset, "broken"),
    "silence after the prelude": (lambda r, w: (begin_then(EVENTS[0])(r, w), silent(r, w)), "idle_timeout"),
}
MISTAKES = ["400 Bad", "404 Not Found", "413 Large", "422 X"]
# Each has a provider of its own: a node remembers failures for a while.
CASES = [
    *(f"{kind} {case}" for kind in ("whole", "stream") for case in FAILURES),
    *STREAM_FAILURES,
    *MISTAKES,
    "exhausted",
]


def slug(case: str) -> str:
    """A provider's name for a case."""
    return "".join(letter if letter.isalnum() else "-" for letter in case.lower())


@pytest.fixture(scope="module")
def relay(upstreams: list[RawUpstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    first, second = upstreams
    with socket.create_server(("127.0.0.1", 0)) as unused:
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
    keys = [{"label": "bad", "key": "sk-bad", "priority": 0}, {"label": "good", "key": "sk-good", "priority": 1}]
    providers = [
        provider("second", second.url, priority=1),
        provider("dead", dead),
        provider("keyed", first.url, keys=keys),
        provider("turns-1", first.url),
        provider("turns-2", second.url),
        *(provider(name, first.url, timeouts={"first_byte": "1s", "idle": "1s"}) for name in map(slug, CASES)),
    ]
    routes = [
        {"match": {"model": "claude-dead"}, "to": [{"provider": "dead"}, {"provider": "second"}]},
        {"match": {"model": "claude-only-dead"}, "to": [{"provider": "dead"}]},
        {"match": {"model": "claude-keyed"}, "to": [{"provider": "keyed"}]},
        {"match": {"model": "claude-stale"}, "to": [{"provider": "turns-1"}]},
        {
            "match": {"model": "claude-turns"},
            "strategy": "round-robin",
            "to": [{"provider": "turns-1"}, {"provider": "turns-2"}],
        },
        *(
            {"match": {"model": f"claude-{name}"}, "to": [{"provider": name}, {"provider": "second"}]}
            for name in map(slug, CASES)
        ),
    ]
    with relaying(tmp_path_factory.mktemp("relay"), config(*providers, routing={"routes": routes})) as relay:
        yield relay


@pytest.fixture(autouse=True)
def _fresh(upstreams: list[RawUpstream]) -> Iterator[None]:
    for upstream in upstreams:
        upstream.requests.clear()
    upstreams[0].answer = lambda request, wire: wire.send(json_answer(MESSAGE))
    upstreams[1].answer = stream_answer_or_message
    yield
    assert not any(upstream.failures for upstream in upstreams)


@pytest.mark.clause("errors.before-content")
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_a_failure_before_commit_moves_on(
    relay: Relay, upstreams: list[RawUpstream], failure: str, *, is_stream: bool
) -> None:
    """The client gets the second provider's answer, and the record tells what happened."""
    upstreams[0].answer, reason = FAILURES[failure]
    kind = "stream" if is_stream else "whole"
    body = named("claude-" + slug(f"{kind} {failure}"), STREAM_BODY if is_stream else BODY)
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", body, AUTH)

    assert (answer.status, answer.body) == (200, b"".join(EVENTS) if is_stream else MESSAGE)
    assert answer.header("x-cc-relay-provider") == "second"
    assert answer.header("x-cc-relay-attempts") == "2"
    assert upstreams[1].requests[0].body == body
    assert _last_record(relay, answer.header("x-cc-relay-request-id"))["attempts"][0]["reason"] == reason  # type: ignore[index]


@pytest.mark.clause("errors.before-content")
@pytest.mark.parametrize("failure", STREAM_FAILURES)
def test_a_stream_that_fails_before_content_moves_on(relay: Relay, upstreams: list[RawUpstream], failure: str) -> None:
    """Nothing of the failed beginning is mixed into the answer."""
    upstreams[0].answer, reason = STREAM_FAILURES[failure]
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", named("claude-" + slug(failure), STREAM_BODY), AUTH)

    assert (answer.status, answer.body) == (200, b"".join(EVENTS))
    assert _last_record(relay, answer.header("x-cc-relay-request-id"))["attempts"][0]["reason"] == reason  # type: ignore[index]


@pytest.mark.clause("errors.unmodified")
@pytest.mark.parametrize("status", MISTAKES)
def test_the_clients_own_mistakes_do_not_move_on(relay: Relay, upstreams: list[RawUpstream], status: str) -> None:
    """Another provider would answer the same, and Claude Code recovers from the wording."""
    upstreams[0].answer = send(error_answer(status, "invalid_request_error"))
    with client(relay) as connection:
        assert connection.ask("POST", "/v1/messages", named("claude-" + slug(status)), AUTH).status == int(status[:3])

    assert not upstreams[1].requests


def test_a_provider_that_cannot_be_reached_is_passed_over(relay: Relay) -> None:
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", named("claude-dead"), AUTH)

    assert answer.header("x-cc-relay-provider") == "second"
    assert _last_record(relay, answer.header("x-cc-relay-request-id"))["attempts"][0]["reason"] == "connect"  # type: ignore[index]


@pytest.mark.clause("errors.own")
def test_without_any_answer_the_client_is_told_why(relay: Relay) -> None:
    """In Anthropic's shape, with a status that Claude Code retries."""
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", named("claude-only-dead"), AUTH)

    assert answer.status == 502
    assert b'"type":"api_error"' in answer.body
    assert b"provider dead could not be reached" in answer.body


def test_the_second_key_serves_when_the_first_is_refused(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """A revoked key must not be the user's problem."""
    refusal = error_answer("401 No", "authentication_error")
    upstreams[0].answer = lambda request, wire: wire.send(
        refusal if request.header("x-api-key") == "sk-bad" else json_answer(MESSAGE)
    )
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", named("claude-keyed"), AUTH)

    assert answer.status == 200
    assert [request.header("x-api-key") for request in upstreams[0].requests] == ["sk-bad", "sk-good"]


@pytest.mark.clause("errors.unmodified")
def test_when_all_have_failed_the_last_real_answer_goes_back(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """With its retry-after, even if the last attempt had no answer at all."""
    upstreams[0].answer = send(error_answer("429 Too Many", "rate_limit_error", "retry-after: 9"))
    upstreams[1].answer = reset
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", named("claude-exhausted"), AUTH)

    assert answer.status == 429
    assert answer.header("retry-after") == "9"
    assert answer.header("x-cc-relay-provider") == "exhausted"
    assert answer.header("x-cc-relay-attempts") == "2"


def test_a_kept_connection_that_died_is_not_a_failure(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """Servers hang up idle connections; the request goes out again on a fresh one, once."""
    deaths = []

    def answer(request: Request, wire: Wire) -> None:
        wire.send(json_answer(MESSAGE))
        deaths.append(1)

    def die(request: Request, wire: Wire) -> None:
        if len(deaths) == 1:
            deaths.append(2)
            wire.reset()
        else:
            wire.send(json_answer(MESSAGE))

    upstreams[0].answer = answer
    with client(relay) as connection:
        assert connection.ask("POST", "/v1/messages", named("claude-stale"), AUTH).status == 200
        upstreams[0].answer = die
        answered = connection.ask("POST", "/v1/messages", named("claude-stale"), AUTH)

    assert answered.status == 200
    assert answered.header("x-cc-relay-attempts") == "1"


def test_round_robin_takes_turns(relay: Relay, upstreams: list[RawUpstream]) -> None:
    with client(relay) as connection:
        for _ in range(10):
            connection.ask("POST", "/v1/messages", named("claude-turns"), AUTH)

    assert [len(upstream.requests) for upstream in upstreams] == [5, 5]


@pytest.mark.clause("request.session")
def test_a_session_stays_where_it_is(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """Its prompt cache and its signed thinking live there."""
    session = "x-claude-code-session-id: 0a0a0a0a-0000-0000-0000-000000000001"
    with client(relay) as connection:
        for _ in range(10):
            connection.ask("POST", "/v1/messages", named("claude-turns"), AUTH, session)

    assert sorted(len(upstream.requests) for upstream in upstreams) == [0, 10]


def test_a_provider_whose_address_was_put_right_is_tried_again(upstreams: list[RawUpstream], tmp_path: Path) -> None:
    """It does not go on resting for what was wrong."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wrong = f"http://127.0.0.1:{taken.getsockname()[1]}"

    def text(url: str) -> str:
        return config(provider("a", url), provider("b", upstreams[1].url, priority=1), routing={"cooldown": "10m"})

    with relaying(tmp_path, text(wrong)) as relay, client(relay) as connection:
        assert connection.ask("POST", "/v1/messages", BODY, AUTH).header("x-cc-relay-provider") == "b"
        reconfigured(relay, text(upstreams[0].url))

        def served_by() -> str | None:
            return connection.ask("POST", "/v1/messages", BODY, AUTH).header("x-cc-relay-provider")

        until(lambda: served_by() == "a", "the provider is tried")


@pytest.mark.clause("errors.after-content")
def test_an_error_after_pings_of_the_relays_is_an_error_event(
    upstreams: list[RawUpstream], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Once the client has a stream, even a late 429 can only be an event, with the provider's own words."""
    may_fail = threading.Event()

    def answer(request: Request, wire: Wire) -> None:
        assert may_fail.wait(20)
        wire.send(error_answer("429 Too Many", "rate_limit_error"))

    upstreams[0].answer = answer
    text = config(provider("first", upstreams[0].url), routing={"silence_bound": "500ms"})
    with relaying(tmp_path_factory.mktemp("late"), text) as relay, client(relay) as connection:
        connection.request("POST", "/v1/messages", STREAM_BODY, AUTH)
        connection.head()
        assert connection.payload().startswith(b"event: ping")
        may_fail.set()
        received = b""
        while payload := connection.payload():
            received += payload
        until(lambda: records(relay), "the record")

    assert received.endswith(
        b'event: error\ndata: {"type":"error","error":{"type":"rate_limit_error","message":"no"},"request_id":"req_up"}\n\n'
    )


def _last_record(relay: Relay, request_id: str | None) -> dict[str, object]:
    def found() -> list[dict[str, object]]:
        return [record for record in records(relay) if record["request_id"] == request_id]

    until(found, f"the record of {request_id}")
    return found()[0]


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/messages/batches", "/v1/files"])
def test_a_limit_on_something_else_moves_no_conversation(
    upstreams: list[RawUpstream], tmp_path: Path, path: str
) -> None:
    """Counting, batches and files have limits of their own; the session's cache is still where it was."""

    def limited(request: Request, wire: Wire) -> None:
        is_limited = request.path == path
        wire.send(
            error_answer("429 Too Many", "rate_limit_error", "retry-after: 30") if is_limited else json_answer(MESSAGE)
        )

    upstreams[0].answer, upstreams[1].answer = limited, send(json_answer(MESSAGE))
    providers = [provider("a", upstreams[0].url), provider("b", upstreams[1].url, priority=1)]
    session = "x-claude-code-session-id: 0a0a0a0a-0000-0000-0000-00000000000b"
    with relaying(tmp_path, config(*providers)) as relay, client(relay) as connection:
        connection.ask("POST", path, BODY, AUTH, session)
        answer = connection.ask("POST", "/v1/messages", BODY, AUTH, session)

    assert (answer.status, answer.header("x-cc-relay-provider")) == (200, "a")
