"""Hostile providers: whatever one says, its client gets well-formed HTTP or an end, and everybody else is served."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable

import pytest
from support.attack import Target
from support.client import Answer
from support.relay import AUTH, BODY
from support.serving import until
from support.upstream import EVENTS, MESSAGE, Request, Wire, event, json_answer

STREAM = BODY[:-1] + b',"stream":true}'
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
JSON = b"content-type: application/json\r\n"


def asked(target: Target, body: bytes = BODY, within_s: float = 15.0) -> Answer | None:
    """The answer to a request that goes to the hostile provider; None if the relay hung up before its end."""
    with target.connect(within_s) as client:
        try:
            return client.ask("POST", "/v1/messages", body, AUTH)
        except ConnectionError:
            return None


def says(target: Target, data: bytes, *, hangs_up: bool = True) -> None:
    """From now on the provider says this to everybody."""

    def answer(request: Request, wire: Wire) -> None:
        wire.send(data)
        if hangs_up:
            wire.sock.close()

    target.upstream.answer = answer


NO_ANSWERS = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 2",
    "http/0.9": b"<html>hello</html>",
    "http/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18),
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status of 600": b"HTTP/1.1 600 X\r\n\r\n",
    "a status of 099": b"HTTP/1.1 099 X\r\n\r\n",
    "a CR in the reason": b"HTTP/1.1 200 O\rK\r\ncontent-length: 0\r\n\r\n",
    "an LF in the reason": b"HTTP/1.1 200 OK\nx: 1\r\ncontent-length: 0\r\n\r\n",
    "a negative length": OK + b"content-length: -5\r\n\r\nabcde",
    "a huge length": OK + b"content-length: 99999999999999999999999\r\n\r\nabc",
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 5\r\n\r\nabcde",
    "a list of lengths": OK + b"content-length: 2, 2\r\n\r\n{}",
    "cl+te": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "te gzip": OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "te twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded line": OK + b"x: 1\r\n y: 2\r\ncontent-length: 0\r\n\r\n",
    "a bare LF": OK + b"x: 1\ncontent-length: 0\r\n\r\n",
    "a blank before the colon": OK + b"content-length : 0\r\n\r\n",
    "NUL in a value": OK + b"x: \x00\r\ncontent-length: 0\r\n\r\n",
    "a line without a colon": OK + b"content-length: 0\r\nserver\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n" + OK,
    "1000 interim answers": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 1000 + json_answer(MESSAGE),
    "interim answers only": b"HTTP/1.1 100 Continue\r\n\r\n" * 5,
    "an endless head": OK + b"x: " + b"y" * (1 << 20),
    "endless lines": OK + b"x: y\r\n" * 100_000,
    "257 lines": OK + b"".join(b"x-%d: y\r\n" % n for n in range(257)) + b"content-length: 0\r\n\r\n",
    "a long head that ends": OK + b"x: " + b"y" * (300 << 10) + b"\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_answer_is_a_502(target: Target, name: str, body: bytes) -> None:
    """Nothing of it reaches the client; the next request is served."""
    says(target, NO_ANSWERS[name])
    answer = asked(target, body)

    assert answer is not None
    assert (answer.status, answer.header("content-type")) == (502, "application/json")
    assert all(name not in ("x", "link", "upgrade", "y") for name, _ in answer.headers)
    target.upstream.answer = lambda request, wire: wire.send(json_answer(MESSAGE))
    assert (good := asked(target)) is not None
    assert good.body == MESSAGE


BAD_CHUNKS = {
    "a size with a sign": b"+5\r\nabcde\r\n",
    "a size of 16 digits": b"ffffffffffffffff\r\n",
    "no size": b"\r\n",
    "letters": b"xyz\r\n",
    "an LF": b"5\nabcde\n0\n\n",
    "too long": b"2\r\nabcde\r\n",
    "a CR in an extension": b"5;\r \r\nabcde\r\n",
    "an endless extension": b"5;" + b"x" * 10_000,
    "a smuggled answer for a trailer": b"0\r\nHTTP/1.1 200 OK\r\n\r\n",
    "endless trailers": b"0\r\n" + b"x: y\r\n" * 10_000,
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
@pytest.mark.parametrize("begun", [False, True])
def test_bad_chunks_end_an_answer_as_broken(target: Target, name: str, begun: bool) -> None:
    """A stream that had begun ends in an error event, or in a cut; never as if it were whole."""
    beginning = b"".join(EVENTS[:4]) if begun else b""
    says(target, CHUNKED + (b"%x\r\n%b\r\n" % (len(beginning), beginning) if begun else b"") + BAD_CHUNKS[name])
    answer = asked(target, STREAM)

    if answer is not None and answer.status == 200:
        assert b"event: error" in answer.body
    else:
        assert answer is None or answer.status == 502


def test_headers_of_an_answer_cannot_become_others(target: Target) -> None:
    """What a provider writes into a value stays in it, in the answer and in the log."""
    nasty = 'a"}{\\"event\\":\\"forged\\"}%0d%0aset-cookie: x\\r\\n'
    lines = [f"request-id: {nasty}", f"anthropic-organization-id: {nasty}", "x-eight-bits: \xff\x85"]
    head = "HTTP/1.1 200 OK\r\n" + "".join(f"{line}\r\n" for line in lines)
    says(target, head.encode("latin-1") + JSON + b"content-length: %d\r\n\r\n" % len(MESSAGE) + MESSAGE)
    answer = asked(target)

    assert answer is not None
    assert answer.header("request-id") == nasty
    assert answer.header("set-cookie") is None
    until(lambda: "forged" in target.relay.output, "told")
    assert not target.relay.events("forged")
    assert b"\x85" not in target.relay.log.read_bytes()


def test_an_interim_answer_or_two_are_passed_over(target: Target) -> None:
    says(target, b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3 + json_answer(MESSAGE))
    answer = asked(target)
    assert answer is not None
    assert (answer.status, answer.body, answer.header("link")) == (200, MESSAGE, None)


def test_what_follows_an_answer_is_nobodys(target: Target) -> None:
    """A second answer behind the first must not become the answer to the next request."""
    poison = json_answer(b'{"poison":1}')
    says(target, json_answer(MESSAGE) + poison, hangs_up=False)
    for _ in range(5):
        answer = asked(target)
        assert answer is not None
        assert answer.body == MESSAGE


def test_a_compressed_bomb_passes_unopened(target: Target) -> None:
    """64 MB in 64 KB: the relay never opens it, and does not count its tokens."""
    bomb = gzip.compress(b" " * (64 << 20))
    before_mb = target.memory_mb()
    says(target, json_answer(bomb, "200 OK", "content-encoding: gzip"))
    answer = asked(target)
    assert answer is not None
    assert answer.body == bomb
    assert target.memory_mb() - before_mb < 16


def flood(piece: bytes) -> Callable[[Request, Wire], None]:
    """An answer of this, again and again, for as long as anybody listens."""

    def answer(request: Request, wire: Wire) -> None:
        with contextlib.suppress(OSError):
            wire.send(CHUNKED)
            for _ in range(200_000):
                wire.send(piece)

    return answer


@pytest.mark.parametrize(
    "piece",
    [
        b"1\r\nx\r\n" * 10_000,
        b"%x\r\n%b\r\n" % (1 << 20, b"x" * (1 << 20)),
        b"%x\r\n%b\r\n" % (15, b"event: ping\n\n\n\n") * 2000,
        b"%x\r\n%b\r\n" % (21, b"event: message_start\n") + b"1\r\nd\r\n" * 10_000,
        b"2\r\n\r\n\r\n" * 5000,
    ],
    ids=["tiny chunks", "one endless line", "pings", "an event in tiny chunks", "line ends"],
)
def test_an_endless_stream_costs_nobody_else_anything(target: Target, piece: bytes) -> None:
    """The client that asked for it may read it; the others are served meanwhile, quickly, and memory stays."""
    target.upstream.answer = flood(piece)
    before_mb = target.memory_mb()
    with target.connect(5.0) as client:
        client.request("POST", "/v1/messages", STREAM, AUTH)
        until(lambda: target.upstream.requests, "it began")
        for _ in range(3):
            for _ in range(10):
                client.more()
            target.serves_others(within_s=3.0)
    assert target.memory_mb() - before_mb < 32


@pytest.mark.parametrize("status", ["429 X", "500 X", "401 X"])
def test_an_error_body_without_end_is_not_waited_for(target: Target, status: str) -> None:
    """Collected while another target may take over; a drip of bytes must not hold it for ever."""

    def answer(request: Request, wire: Wire) -> None:
        with contextlib.suppress(OSError):
            wire.send(f"HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
            for _ in range(5000):
                wire.send(b"1000\r\n" + b"e" * 4096 + b"\r\n")
            wire.wait_gone(10)

    target.upstream.answer = answer
    before_mb = target.memory_mb()
    with contextlib.suppress(ConnectionError), target.connect(15.0) as client:
        client.request("POST", "/v1/messages", BODY, AUTH)
        assert client.head().status in (int(status[:3]), 502)
        target.serves_others()
    assert target.memory_mb() - before_mb < 24


def test_a_silent_provider_is_given_up(target: Target) -> None:
    target.upstream.answer = lambda request, wire: wire.wait_gone(10)
    answer = asked(target)
    assert answer is not None
    assert answer.status == 504


def test_events_that_speak_of_events_do_not_end_or_count(target: Target) -> None:
    """Text that looks like protocol is text: the tap and the broken-stream end are not fooled."""
    trick = "event: message_stop\\ndata: {}\\n\\nevent: error"
    body = b"".join(EVENTS[:2]) + event("content_block_delta", f'{{"delta":{{"text":"{trick}"}}}}') * 3
    says(target, CHUNKED + b"%x\r\n%b\r\n" % (len(body), body))
    answer = asked(target, STREAM)
    assert answer is not None
    assert answer.body.endswith(b"\n\n")
    assert b"event: error\ndata: " in answer.body.rpartition(b"event: content_block_delta")[2]
