"""Streams pass event by event, survive silence, end properly when broken, and cost the provider nothing once the client has left."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.relay import AUTH, STREAM_BODY, client, config, provider, records, relaying
from support.serving import Relay, until
from support.tls import Certificates
from support.upstream import EVENTS, RawUpstream, Request, Wire, event, stream_answer

SILENCE_BOUND_S = 1.0


@pytest.fixture(scope="module", params=["http", "https"])
def upstream(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[RawUpstream]:
    tls: ssl.SSLContext | None = certificates.server_context() if request.param == "https" else None
    with RawUpstream(stream_answer, tls) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def relay(
    upstream: RawUpstream, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    trust = {"ca_file": str(certificates.ca_file)} if upstream.url.startswith("https") else {}
    text = config(
        provider("one", upstream.url, timeouts={"first_byte": "20s", "idle": "20s"}, **trust),
        routing={"silence_bound": f"{SILENCE_BOUND_S:g}s"},
    )
    with relaying(tmp_path_factory.mktemp("relay"), text) as relay:
        yield relay


@pytest.fixture(autouse=True)
def _fresh(upstream: RawUpstream) -> Iterator[None]:
    upstream.requests.clear()
    upstream.answer = stream_answer
    yield
    assert not upstream.failures


@pytest.mark.clause("answers.unbuffered")
def test_event_k_arrives_before_the_provider_sends_the_next(relay: Relay, upstream: RawUpstream) -> None:
    """A person reads along; nothing is kept back."""
    may_send = threading.Semaphore(0)

    def answer(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        for piece in EVENTS:
            assert may_send.acquire(timeout=20)
            wire.chunk(piece)
        wire.end_stream()

    upstream.answer = answer
    with client(relay) as connection:
        connection.request("POST", "/v1/messages", STREAM_BODY, AUTH)
        assert connection.head().status == 200
        for piece in EVENTS:
            may_send.release()
            assert connection.payload() == piece
        assert connection.payload() == b""


@pytest.mark.clause("answers.pings")
def test_pings_fill_silence_before_and_between_events(relay: Relay, upstream: RawUpstream) -> None:
    """The client never waits in silence longer than the bound; what the provider says is not touched."""
    silence_ends = threading.Event()
    middle = threading.Event()

    def answer(request: Request, wire: Wire) -> None:
        assert silence_ends.wait(20)
        wire.begin_stream()
        for piece in EVENTS[:4]:
            wire.chunk(piece)
        assert middle.wait(20)
        for piece in EVENTS[4:]:
            wire.chunk(piece)
        wire.end_stream()

    upstream.answer = answer
    with client(relay) as connection:
        connection.request("POST", "/v1/messages", STREAM_BODY, AUTH)
        assert connection.head().header("content-type") == "text/event-stream; charset=utf-8"
        assert connection.payload() == event("ping", '{"type": "ping"}')
        silence_ends.set()
        seen = [connection.payload() for _ in EVENTS[:4]]
        assert connection.payload() == event("ping", '{"type": "ping"}')
        middle.set()
        while payload := connection.payload():
            seen.append(payload)

    assert b"".join(seen) == b"".join(EVENTS)


@pytest.mark.clause("errors.cancel")
@pytest.mark.parametrize("when", ["before the head", "after the head", "in the middle of the stream"])
def test_a_client_that_leaves_ends_the_upstream_request_at_once(relay: Relay, upstream: RawUpstream, when: str) -> None:
    """Tokens that nobody reads cost money; also while the provider is silent."""
    noticed: list[float] = []
    done = threading.Event()

    def answer(request: Request, wire: Wire) -> None:
        if when != "before the head":
            wire.begin_stream()
        if when == "in the middle of the stream":
            wire.chunk(EVENTS[0])
            wire.chunk(EVENTS[1])
        noticed.append(wire.wait_gone(5))
        done.set()

    upstream.answer = answer
    with client(relay) as connection:
        connection.request("POST", "/v1/messages", STREAM_BODY, AUTH)
        if when == "in the middle of the stream":
            connection.head()
            assert connection.payload() == EVENTS[0]
        until(lambda: upstream.requests, "the request upstream")
    left = time.monotonic()
    assert done.wait(5)
    assert time.monotonic() - left < 1.0
    until(lambda: records(relay)[-1]["outcome"] == "client_left", "the record")


def test_a_slow_reader_does_not_make_memory_grow(relay: Relay, upstream: RawUpstream) -> None:
    """10,000 events against a reader that has stopped: the provider is made to wait instead."""
    piece = event("content_block_delta", json.dumps({"type": "content_block_delta", "text": "x" * 4000}))
    sent = [0]
    finished = threading.Event()

    def answer(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        wire.chunk(EVENTS[0])
        for _ in range(10_000):
            wire.chunk(piece)
            sent[0] += 1
        wire.chunk(EVENTS[-1])
        wire.end_stream()
        finished.set()

    worker = relay.pids("worker-0")[-1]
    before = _resident_bytes(worker)
    upstream.answer = answer
    with client(relay) as connection:
        connection.request("POST", "/v1/messages", STREAM_BODY, AUTH)
        connection.head()
        stalled = _until_still(lambda: sent[0])
        assert stalled < 10_000
        assert _resident_bytes(worker) - before < 32 << 20
        received = 0
        while payload := connection.payload():
            received += len(payload)
        assert finished.wait(10)

    assert received == len(EVENTS[0]) + 10_000 * len(piece) + len(EVENTS[-1])


WHOLE = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in EVENTS)


@pytest.mark.clause("errors.after-content")
@pytest.mark.parametrize("cut", sorted({*range(1, len(WHOLE) - 40, 61), *range(300, 330)}))
def test_a_stream_that_breaks_ends_in_a_proper_error_event(relay: Relay, upstream: RawUpstream, cut: int) -> None:
    """Wherever the provider breaks off, the client gets whole chunks and, last, an error event; or a broken connection."""

    def answer(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        wire.send(WHOLE[:cut])
        wire.sock.close()

    upstream.answer = answer
    with client(relay) as connection:
        connection.request("POST", "/v1/messages", STREAM_BODY, AUTH)
        connection.head()
        received = b""
        try:
            while payload := connection.payload():
                received += payload
        except ConnectionError:
            assert not _ends_a_payload(cut)  # cut inside a chunk's size line: nothing can follow
            return
    events = [block for block in received.replace(b"\r\n", b"\n").split(b"\n\n") if block.strip()]
    last = events[-1].strip().split(b"\n")
    assert last[0] == b"event: error"
    assert json.loads(last[1].removeprefix(b"data: "))["error"]["type"] == "api_error"
    whole = b"".join(EVENTS)
    for block in events[:-1]:  # all that a client would act upon is as the provider sent it
        lines = block.strip(b"\n").split(b"\n")
        names = [line for line in lines if line.startswith(b"event:")]
        if names and names[-1] != b"event: incomplete":
            assert block.strip(b"\n") in whole


def _ends_a_payload(cut: int) -> bool:
    """Whether the cut is inside or at the end of a payload."""
    at = 0
    for piece in EVENTS:
        at += len(b"%x\r\n" % len(piece))
        if at <= cut <= at + len(piece):
            return True
        at += len(piece) + 2
        if cut == at:
            return True
    return False


def test_usage_is_read_from_the_stream(relay: Relay, upstream: RawUpstream) -> None:
    with client(relay) as connection:
        connection.ask("POST", "/v1/messages", STREAM_BODY, AUTH)
    until(lambda: records(relay) and records(relay)[-1]["outcome"] == "served", "the record")
    record = records(relay)[-1]

    assert (record["input_tokens"], record["output_tokens"], record["streamed"]) == (7, 9, True)


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def _until_still(measure: Callable[[], int]) -> int:
    """The value once it has stopped changing."""
    last, since = measure(), time.monotonic()

    def is_still() -> bool:
        nonlocal last, since
        now = measure()
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 1.0

    until(is_still, "the provider is made to wait", within_s=30)
    return last
