"""What passes through the relay is what was sent: bodies, headers and answers, to the byte."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from support.relay import AUTH, KEY, client, config, provider, relaying
from support.serving import Relay, until
from support.upstream import EVENTS, MESSAGE, RawUpstream, Request, Wire, json_answer

CORPUS = Path(__file__).parents[1] / "corpus" / "claude_code"


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with RawUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def relay(upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    plain = provider("plain", upstream.url, serves=["*"])
    mapped = provider("mapped", f"{upstream.url}/prefix/anthropic", model_mapping={"claude-asked*": "model-used"})
    routes = [{"match": {"model": "claude-asked*"}, "to": [{"provider": "mapped"}]}]
    text = config(plain, mapped, routing={"routes": routes})
    with relaying(tmp_path_factory.mktemp("relay"), text) as relay:
        yield relay


@pytest.fixture(autouse=True)
def _fresh(upstream: RawUpstream) -> Iterator[None]:
    upstream.requests.clear()
    upstream.answer = lambda request, wire: wire.send(json_answer(MESSAGE))
    yield
    assert not upstream.failures


def generated() -> list[bytes]:
    """Bodies that a parse and a new serialisation would change."""
    deep = b"[" * 200 + b"]" * 200
    return [
        b'{"model":"claude-x","n":12345678901234567890123456789,"f":1.10,"e":1E+2,"z":-0.0,"messages":[]}',
        b'{"model":"claude-x","a":1,"a":2,"messages":[],"messages":[]}',
        '{"model":"claude-x","t":"é😀\\u00e9\\ud83d\\ude00\\/\u2028","messages":[]}'.encode(),
        b'{ "model" : "claude-x" ,\r\n\t"messages" : [ ] , "stream" : false }',
        b'{"messages":[],"stream":false,"model":"claude-x"}',
        b'{"model":"claude-x","deep":' + deep + b',"messages":[]}',
        b'{"model":"claude-x","lone":"\\ud800","messages":[],"unknown_field":{"x":[1,2,{}]}}',
        b'{"model":"claude-x","big":"' + b"x" * (1 << 20) + b'","messages":[]}',
        b'{"model":"claude-x","tools":[{"input_schema":{"properties":{"model":{"type":"string"},"stream":{"const":true}}}}]}',
    ]


def recorded() -> list[bytes]:
    """Bodies that Claude Code really sent."""
    bodies = [gzip.decompress(path.read_bytes()) for path in sorted(CORPUS.glob("*.body.gz"))]
    return [body for body in bodies if body]


@pytest.mark.clause("request.body")
def test_bodies_arrive_byte_for_byte(relay: Relay, upstream: RawUpstream) -> None:
    """Prompt caches and signed thinking depend on exact bytes."""
    bodies = generated() + recorded()
    with client(relay) as connection:
        for body in bodies:
            assert connection.ask("POST", "/v1/messages?beta=true", body, AUTH).status == 200

    assert [request.body for request in upstream.requests] == bodies
    assert {request.path for request in upstream.requests} == {"/v1/messages?beta=true"}


@pytest.mark.clause("request.body")
def test_only_the_mapped_model_changes(relay: Relay, upstream: RawUpstream) -> None:
    """Everything around the name stays as it came, wherever the key stands."""
    bodies = [body.replace(b'"claude-x"', b'"claude-asked-1"') for body in generated()]
    with client(relay) as connection:
        for body in bodies:
            assert connection.ask("POST", "/v1/messages", body, AUTH).status == 200

    assert [request.body for request in upstream.requests] == [
        body.replace(b'"claude-asked-1"', b'"model-used"') for body in bodies
    ]
    assert {request.path for request in upstream.requests} == {"/prefix/anthropic/v1/messages"}


@pytest.mark.clause("request.framing")
def test_a_chunked_request_arrives_whole_and_with_its_length(relay: Relay, upstream: RawUpstream) -> None:
    """The relay needs the body whole to be able to send it twice."""
    body = b'{"model":"claude-x","messages":[]}'
    with client(relay) as connection:
        pieces = b"".join(b"%x\r\n%b\r\n" % (len(body[n : n + 7]), body[n : n + 7]) for n in range(0, len(body), 7))
        head = f"POST /v1/messages HTTP/1.1\r\nhost: relay\r\n{AUTH}\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sock.sendall(head.encode() + pieces + b"0\r\n\r\n")
        assert connection.answer().status == 200

    assert upstream.requests[0].body == body
    assert upstream.requests[0].header("content-length") == str(len(body))
    assert upstream.requests[0].header("transfer-encoding") is None


@pytest.mark.clause("request.headers")
def test_end_to_end_headers_arrive_and_this_hops_do_not(relay: Relay, upstream: RawUpstream) -> None:
    """Headers are open lists; the relay's own credential must never leave it."""
    passed = [
        "anthropic-version: 2023-06-01",
        "anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14",
        "X-Claude-Code-Session-Id: 0b0b0b0b-1111-2222-3333-444444444444",
        "x-claude-code-agent-id: agent",
        "x-claude-code-new: 1",
        "anthropic-brand-new: x",
        "X-Stainless-Retry-Count: 0",
        "User-Agent: claude-cli/2.1.329 (external, sdk-cli)",
        "x-app: cli",
        "x-empty:",
        "content-type: application/json",
        "Accept: application/json",
    ]
    dropped = [
        "connection: keep-alive, x-hop",
        "x-hop: 1",
        "keep-alive: timeout=5",
        "te: trailers",
        "proxy-authorization: Basic x",
        "cookie: a=b",
        "accept-encoding: gzip, br",
        f"authorization: Bearer {KEY}",
    ]
    with client(relay) as connection:
        assert connection.ask("POST", "/v1/messages", generated()[0], AUTH, *passed, *dropped).status == 200

    request = upstream.requests[0]
    for line in passed:
        assert line.encode() in request.head
    assert KEY.encode() not in request.head
    assert request.header("x-api-key") == "sk-up-plain"
    assert request.header("accept-encoding") == "identity"
    assert request.header("host") == f"127.0.0.1:{upstream.port}"
    for name in ("connection", "x-hop", "keep-alive", "te", "proxy-authorization", "cookie", "authorization"):
        assert request.header(name) is None


@pytest.mark.clause("request.framing")
def test_expect_is_answered_here(relay: Relay, upstream: RawUpstream) -> None:
    """curl waits for it before it sends a large body."""
    body = generated()[0]
    with client(relay) as connection:
        head = f"POST /v1/messages HTTP/1.1\r\nhost: relay\r\n{AUTH}\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sock.sendall(head.encode())
        assert connection.head().status == 100
        connection.sock.sendall(body)
        assert connection.answer().status == 200

    assert upstream.requests[0].header("expect") is None


@pytest.mark.clause("errors.unmodified")
@pytest.mark.parametrize(
    "status", ["400 Bad Request", "404 Not Found", "413 Too Large", "422 X", "429 Y", "500 Z", "529 Overloaded"]
)
def test_an_error_answer_comes_back_as_it_was(relay: Relay, upstream: RawUpstream, status: str) -> None:
    """Claude Code recovers by the wording of errors, and waits as retry-after says."""
    body = b'{"type":"error","error":{"type":"odd_error","message":"prompt is too long: 1 > 0"},"request_id":"req_1"}'
    lines = [
        "retry-after: 1",
        "x-should-retry: false",
        "request-id: req_1",
        "anthropic-ratelimit-requests-remaining: 0",
    ]
    upstream.answer = lambda request, wire: wire.send(json_answer(body, status, *lines))
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", generated()[0], AUTH)

    assert (answer.status, answer.body) == (int(status[:3]), body)
    for line in lines:
        name, _, value = line.partition(": ")
        assert answer.header(name) == value

    upstream.answer = lambda request, wire: wire.send(json_answer(MESSAGE))  # a 429 is heeded: the account rests first
    with client(relay) as connection:
        until(lambda: connection.ask("POST", "/v1/messages", generated()[0], AUTH).status == 200, "room again")


@pytest.mark.clause("answers.headers")
def test_answer_headers_come_back(relay: Relay, upstream: RawUpstream) -> None:
    """Also two of the same name; the relay adds its own and touches none."""
    lines = [
        "request-id: req_2",
        "anthropic-organization-id: org",
        "set-cookie: a=1",
        "set-cookie: b=2",
        "cf-ray: 1-FRA",
        "x-new: é",
    ]
    upstream.answer = lambda request, wire: wire.send(json_answer(MESSAGE, "200 OK", *lines, "keep-alive: timeout=1"))
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", generated()[0], AUTH)

    assert [value for name, value in answer.headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert answer.header("request-id") == "req_2"
    assert answer.header("cf-ray") == "1-FRA"
    assert answer.header("keep-alive") is None
    assert answer.header("x-cc-relay-provider") == "plain"
    assert answer.header("x-cc-relay-attempts") == "1"
    assert answer.header("x-cc-relay-request-id")


@pytest.mark.clause("answers.bytes")
@pytest.mark.parametrize("framing", ["length", "chunked", "until-close"])
@pytest.mark.parametrize("seed", range(8))
def test_answers_are_the_same_for_every_chunking(relay: Relay, upstream: RawUpstream, framing: str, seed: int) -> None:
    """Wherever the provider flushes, the client gets the same bytes."""
    rolls = random.Random(seed)
    wire_body = b"".join(EVENTS) if seed % 2 else MESSAGE * 50
    kind = "text/event-stream" if seed % 2 else "application/json"
    edges = [0, *sorted(rolls.sample(range(1, len(wire_body)), rolls.randint(1, 60))), len(wire_body)]
    pieces = [wire_body[a:b] for a, b in pairwise(edges)]

    def answer(request: Request, wire: Wire) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n"
        if framing == "chunked":
            wire.send(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
            for piece in pieces:
                wire.chunk(piece)
            wire.end_stream()
            return
        end = f"content-length: {len(wire_body)}\r\n\r\n" if framing == "length" else "connection: close\r\n\r\n"
        wire.send((head + end).encode())
        for piece in pieces:
            wire.send(piece)
        if framing == "until-close":
            wire.sock.close()

    upstream.answer = answer
    with client(relay) as connection:
        body = b'{"model":"claude-x","messages":[],"stream":%b}' % (b"true" if seed % 2 else b"false")
        answered = connection.ask("POST", "/v1/messages", body, AUTH)
        assert answered.body == wire_body
        upstream.answer = lambda request, wire: wire.send(json_answer(MESSAGE))
        assert connection.ask("POST", "/v1/messages", body, AUTH).body == MESSAGE  # the connection is still in step


@pytest.mark.clause("answers.encoding")
def test_an_encoded_answer_passes_as_it_is(relay: Relay, upstream: RawUpstream) -> None:
    """A provider may compress although it was not asked to."""
    packed = bytes(range(256)) * 8
    upstream.answer = lambda request, wire: wire.send(json_answer(packed, "200 OK", "content-encoding: gzip"))
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", generated()[0], AUTH)

    assert answer.body == packed
    assert answer.header("content-encoding") == "gzip"


def test_a_redirect_is_not_followed(relay: Relay, upstream: RawUpstream) -> None:
    """Credentials must not follow a provider's redirect."""
    upstream.answer = lambda request, wire: wire.send(
        json_answer(b"{}", "307 Temporary", "location: http://127.0.0.1:9/")
    )
    with client(relay) as connection:
        answer = connection.ask("POST", "/v1/messages", generated()[0], AUTH)

    assert answer.status == 307
    assert len(upstream.requests) == 1


def test_recorded_requests_exist() -> None:
    """The corpus of real requests is part of the repository."""
    bodies = recorded()

    assert len(bodies) >= 12
    assert all(json.loads(body)["model"] for body in bodies)
