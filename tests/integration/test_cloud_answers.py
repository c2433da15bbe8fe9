"""What a client gets of a cloud is what Anthropic would have said, and what fails moves on as it does with Anthropic."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.client import Answer
from support.event_stream import chunk_frame, exception_frame
from support.relay import AUTH, BODY, STREAM_BODY, client, config, provider, records, relaying
from support.serving import Relay, until
from support.upstream import EVENTS, MESSAGE, RawUpstream, Request, Wire, json_answer, stream_answer

MODEL = "us.anthropic.claude-opus-5-5"
FRAMES = [chunk_frame(event.partition(b"data: ")[2].strip(), "p" * (n + 1)) for n, event in enumerate(EVENTS)]
AMAZON_ID = "x-amzn-requestid: 0f1e2d3c-amazon"
ACCOUNT_TEXT = "User arn:aws:sts::123456789012:assumed-role/x is not authorized in account 123456789012"

Say = Callable[[Request, Wire], object]


def aws_stream(*frames: bytes, ends: bool = True) -> Say:
    def say(request: Request, wire: Wire) -> None:
        wire.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n"
            + AMAZON_ID.encode()
            + b"\r\nx-amzn-bedrock-content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        data = b"".join(frames)
        for at in range(0, len(data), 37):  # frames do not begin where chunks do
            wire.chunk(data[at : at + 37])
        if ends:
            wire.end_stream()
        else:
            wire.sock.shutdown(socket.SHUT_WR)

    return say


def aws_error(status: str, name: str, message: str) -> Say:
    body = json.dumps({"message": message}).encode()
    return lambda request, wire: wire.send(
        json_answer(body, status, f"x-amzn-ErrorType: {name}:http://internal.amazon.com/", AMAZON_ID)
    )


def google_error(status: str, code: int, name: str, message: str) -> Say:
    body = json.dumps([{"error": {"code": code, "message": message, "status": name}}]).encode()
    return lambda request, wire: wire.send(json_answer(body, status))


@pytest.fixture(scope="module")
def upstreams() -> Iterator[list[RawUpstream]]:
    with RawUpstream() as first, RawUpstream() as second:
        yield [first, second]


# Each case has a provider of its own: a node remembers failures for a while.
MOVING_ON: dict[str, tuple[str, Say, str]] = {
    "throttled": ("bedrock", aws_error("429 X", "ThrottlingException", "slow down"), "rate_limited"),
    "a quota is used up": ("bedrock", aws_error("400 X", "ServiceQuotaExceededException", "quota"), "rate_limited"),
    "the model is not ready": ("bedrock", aws_error("429 X", "ModelNotReadyException", "wait"), "overloaded"),
    "the model timed out": ("bedrock", aws_error("408 X", "ModelTimeoutException", "late"), "server_error"),
    "the model failed": ("bedrock", aws_error("424 X", "ModelErrorException", "oops"), "server_error"),
    "unavailable": ("bedrock", aws_error("503 X", "ServiceUnavailableException", "no"), "overloaded"),
    "an expired token": ("bedrock", aws_error("403 X", "ExpiredTokenException", "expired"), "key_refused"),
    "google exhausted": ("vertex", google_error("429 X", 429, "RESOURCE_EXHAUSTED", "Quota"), "rate_limited"),
    "google unavailable": ("vertex", google_error("503 X", 503, "UNAVAILABLE", "down"), "overloaded"),
    "an exception first": (
        "bedrock",
        aws_stream(exception_frame("throttlingException", "Too many requests")),
        "stream_error",
    ),
    "an exception after the prelude": (
        "bedrock",
        aws_stream(FRAMES[0], exception_frame("modelStreamErrorException", "x")),
        "stream_error",
    ),
    "a stream cut off before content": ("bedrock", aws_stream(FRAMES[0], ends=False), "broken"),
    "a stream that ends before content": ("bedrock", aws_stream(FRAMES[0]), "broken"),
    "a damaged prelude": ("bedrock", aws_stream(FRAMES[0][:-1] + b"\0", ends=True), "broken"),
    "an error that never ends": (
        "bedrock",
        lambda request, wire: wire.send(b"HTTP/1.1 503 X\r\ncontent-length: 99\r\n\r\n{"),
        "overloaded",
    ),
}
AT_ONCE = ("whole", "stream", "mistake", "forbidden", "long", "broken", "damaged", "count", "odd-count", "signed")


def slug(case: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in case.lower())


def cloud(name: str, kind: str, url: str, **more: object) -> dict[str, Any]:
    places = {"bedrock": {"region": "us-east-1"}, "vertex": {"project": "my-project", "location": "us-east5"}}
    return provider(name, url, type=kind, **places[kind], **more)


@pytest.fixture(scope="module")
def relay(upstreams: list[RawUpstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    first, second = upstreams
    moving = {slug(case): kind for case, (kind, _, _) in MOVING_ON.items()}
    providers = [
        provider("second", second.url, priority=1),
        *(cloud(name, kind, first.url) for name, kind in moving.items()),
        *(cloud(name, "bedrock", first.url) for name in AT_ONCE if name != "signed"),
        {
            **cloud("signed", "bedrock", first.url),
            "keys": [{"label": "signed", "aws": {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "s"}}],
        },
        cloud("google", "vertex", first.url),
    ]
    routes = [
        *({"match": {"model": f"claude-{one}"}, "to": [to(one), {"provider": "second"}]} for one in moving),
        *({"match": {"model": f"claude-{one}"}, "to": [to(one)]} for one in (*AT_ONCE, "google")),
    ]
    with relaying(tmp_path_factory.mktemp("relay"), config(*providers, routing={"routes": routes})) as relay:
        yield relay


def to(name: str) -> dict[str, str]:
    return {"provider": name, "model": "claude-opus-5-5" if "google" in name else MODEL}


@pytest.fixture(autouse=True)
def _fresh(upstreams: list[RawUpstream]) -> Iterator[None]:
    for upstream in upstreams:
        upstream.requests.clear()
    upstreams[1].answer = _second
    yield
    assert not [failure for upstream in upstreams for failure in upstream.failures]


def _second(request: Request, wire: Wire) -> None:
    if b'"stream":true' in request.body:
        stream_answer(request, wire)
    else:
        wire.send(json_answer(MESSAGE))


def ask(relay: Relay, model: str, *, streams: bool = False, path: str = "/v1/messages") -> Answer:
    body = (STREAM_BODY if streams else BODY).replace(b"claude-test", f"claude-{model}".encode())
    with client(relay) as connection:
        return connection.ask("POST", path, body, AUTH)


def record_of(relay: Relay, answer: Answer) -> dict[str, Any]:
    request_id = answer.header("x-cc-relay-request-id")

    def found() -> list[dict[str, Any]]:
        return [record for record in records(relay) if record["request_id"] == request_id]

    until(found, f"the record of {request_id}")
    return found()[0]


def error_of(answer: Answer) -> dict[str, str]:
    body = json.loads(answer.body)
    assert body["type"] == "error"
    return dict(body["error"])


@pytest.mark.parametrize("case", MOVING_ON)
def test_what_fails_moves_on_by_what_it_means(relay: Relay, upstreams: list[RawUpstream], case: str) -> None:
    """A cloud's statuses are not Anthropic's: a used-up quota is its 400, a model that failed its 424."""
    _, upstreams[0].answer, reason = MOVING_ON[case]
    answer = ask(relay, slug(case), streams=True)

    assert (answer.status, answer.body) == (200, b"".join(EVENTS))
    assert answer.header("x-cc-relay-provider") == "second"
    assert record_of(relay, answer)["attempts"][0]["reason"] == reason


def test_a_stream_is_anthropics(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """Head and body: a client cannot tell which cloud answered."""
    upstreams[0].answer = aws_stream(*FRAMES)
    answer = ask(relay, "stream", streams=True)

    assert (answer.status, answer.body) == (200, b"".join(EVENTS))
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert answer.header("transfer-encoding") == "chunked"
    assert answer.header("request-id") == "0f1e2d3c-amazon"
    assert upstreams[0].requests[0].path == f"/model/{MODEL}/invoke-with-response-stream"
    record = record_of(relay, answer)
    assert record["output_tokens"] == 9
    assert record["upstream_request_id"] == "0f1e2d3c-amazon"


def test_an_old_client_gets_the_events_until_the_connection_ends(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """HTTP/1.0 knows no chunks."""
    upstreams[0].answer = aws_stream(*FRAMES)
    with client(relay) as connection:
        connection.request("POST", "/v1/messages", STREAM_BODY.replace(b"test", b"stream"), AUTH, version="1.0")
        received = b""
        while data := connection.more():
            received += data

    assert received.endswith(b"\r\n\r\n" + b"".join(EVENTS))


def test_a_client_that_leaves_takes_the_clouds_stream_with_it(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """Tokens that nobody reads are not paid for."""
    gone: list[float] = []

    def answer(request: Request, wire: Wire) -> None:
        with contextlib.suppress(ConnectionError):  # the relay may have hung up before all is sent
            aws_stream(*FRAMES[:4])(request, _Open(wire.sock))
        gone.append(wire.wait_gone(10))

    upstreams[0].answer = answer
    with client(relay) as connection:
        connection.request("POST", "/v1/messages", STREAM_BODY.replace(b"test", b"stream"), AUTH)
        connection.head()
        assert connection.payload().startswith(b"event: message_start")

    until(lambda: gone, "the end of the cloud's stream")
    assert gone[0] < 5


class _Open(Wire):
    def end_stream(self) -> None:
        """Leave the stream open."""


def test_an_answer_in_one_piece_is_as_it_came(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """Bedrock's is Anthropic's already."""
    upstreams[0].answer = lambda request, wire: wire.send(json_answer(MESSAGE, "200 OK", AMAZON_ID))
    answer = ask(relay, "whole")

    assert (answer.status, answer.body) == (200, MESSAGE)
    assert json.loads(upstreams[0].requests[0].body)["messages"] == json.loads(BODY)["messages"]


def test_a_kept_connection_to_a_cloud_that_died_is_not_a_failure(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """The request goes out again on a fresh one, signed anew."""
    upstreams[0].answer = lambda request, wire: wire.send(json_answer(MESSAGE))
    assert ask(relay, "signed").status == 200
    deaths: list[Request] = []

    def die_once(request: Request, wire: Wire) -> None:
        if deaths:
            wire.send(json_answer(MESSAGE))
        else:
            deaths.append(request)
            wire.reset()

    upstreams[0].answer = die_once
    answer = ask(relay, "signed")

    assert (answer.status, answer.body) == (200, MESSAGE)
    assert answer.header("x-cc-relay-attempts") == "1"
    assert len(upstreams[0].requests) == 3


def test_a_mistake_is_the_clients_and_reads_as_one(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """In Anthropic's shape, so that its SDKs raise the right error."""
    upstreams[0].answer = aws_error("400 Bad", "ValidationException", "messages: at least one message is required")
    answer = ask(relay, "mistake")

    assert answer.status == 400
    assert error_of(answer) == {
        "type": "invalid_request_error",
        "message": "messages: at least one message is required",
    }
    assert json.loads(answer.body)["request_id"] == answer.header("request-id") == "0f1e2d3c-amazon"
    assert not answer.header("x-amzn-errortype")


def test_a_conversation_that_is_too_long_is_compacted(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """Claude Code does that by the words of the error."""
    upstreams[0].answer = aws_error("400 Bad", "ValidationException", "Input is too long for requested model.")

    assert "prompt is too long" in error_of(ask(relay, "long"))["message"]


def test_names_of_accounts_stay_in_the_house(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """Errors of clouds name them; clients need not know."""
    upstreams[0].answer = aws_error("403 No", "AccessDeniedException", ACCOUNT_TEXT)
    answer = ask(relay, "forbidden")

    assert (answer.status, error_of(answer)["type"]) == (403, "permission_error")
    assert "123456789012" not in answer.body.decode()
    assert "is not authorized" in error_of(answer)["message"]


def test_an_exception_after_content_ends_the_stream_as_an_error(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """Once, with the meaning that it has, and nothing after it."""
    upstreams[0].answer = aws_stream(*FRAMES[:5], exception_frame("serviceUnavailableException", ACCOUNT_TEXT))
    answer = ask(relay, "broken", streams=True)
    *events, last, rest = answer.body.split(b"\n\n")

    assert rest == b""
    assert b"".join(event + b"\n\n" for event in events) == b"".join(EVENTS[:5])
    assert last.startswith(b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"')
    assert b"123456789012" not in last


@pytest.mark.parametrize("end", ["cut off", "ended", "damaged"])
def test_a_stream_that_is_cut_ends_as_an_error(relay: Relay, upstreams: list[RawUpstream], end: str) -> None:
    """What came before it reaches the client; a half event does not."""
    half = FRAMES[5][:40]
    upstreams[0].answer = {
        "cut off": aws_stream(*FRAMES[:5], half, ends=False),
        "ended": aws_stream(*FRAMES[:5]),
        "damaged": aws_stream(*FRAMES[:5], FRAMES[5][:-1] + b"\0", *FRAMES[6:]),
    }[end]
    answer = ask(relay, "damaged", streams=True)
    *events, last, _ = answer.body.split(b"\n\n")

    assert b"".join(event + b"\n\n" for event in events) == b"".join(EVENTS[:5])
    assert last.startswith(b'event: error\ndata: {"type":"error","error":{"type":"api_error"')


def test_tokens_are_counted(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """By CountTokens, for the base model, with what InvokeModel wants in it."""
    upstreams[0].answer = lambda request, wire: wire.send(json_answer(b'{"inputTokens":4711}'))
    answer = ask(relay, "count", path="/v1/messages/count_tokens?beta=true")

    assert (answer.status, answer.body) == (200, b'{"input_tokens":4711}')
    assert upstreams[0].requests[0].path == "/model/anthropic.claude-opus-5-5/count-tokens"


def test_a_count_that_cannot_be_read_is_a_failure(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """Not a count of nothing."""
    upstreams[0].answer = lambda request, wire: wire.send(json_answer(b"<html>"))
    answer = ask(relay, "odd-count", path="/v1/messages/count_tokens")

    assert (answer.status, error_of(answer)["type"]) == (502, "api_error")


def test_googles_errors_are_anthropics(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """Also the ones that come as a list."""
    upstreams[0].answer = google_error("400 X", 400, "INVALID_ARGUMENT", "no such model in projects/my-project/x")
    answer = ask(relay, "google", streams=True)

    assert answer.status == 400
    assert error_of(answer) == {
        "type": "invalid_request_error",
        "message": "no such model in projects/***/x",
    }


def test_no_credential_of_the_client_reaches_a_cloud(relay: Relay, upstreams: list[RawUpstream]) -> None:
    """Nor what would be signed for it, nor Anthropic's own headers."""
    upstreams[0].answer = lambda request, wire: wire.send(json_answer(MESSAGE))
    body = BODY.replace(b"claude-test", b"claude-signed")
    lines = ("anthropic-version: 2023-06-01", "x-amz-date: 20200101T000000Z", "anthropic-workspace-id: w", "x-app: cli")
    with client(relay) as connection:
        assert connection.ask("POST", "/v1/messages", body, AUTH, *lines).status == 200
    request = upstreams[0].requests[0]

    assert request.header("x-app") == "cli"
    assert request.header("x-api-key") is None
    assert request.header("anthropic-version") is None
    assert request.header("anthropic-workspace-id") is None
    assert (request.header("authorization") or "").startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert [value for name, value in request.headers if name == "x-amz-date"] != ["20200101T000000Z"]
