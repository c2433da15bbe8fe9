"""Hostile clients: whatever bytes come, the relay answers with a clear refusal or hangs up, and passes nothing wrong on."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import socket
import time
import zlib

import pytest
from support.attack import Target
from support.relay import AUTH, BODY, KEY
from support.serving import until
from support.upstream import MESSAGE, Request, Wire, json_answer

SMUGGLED = b"POST /v1/messages HTTP/1.1\r\nhost: r\r\nx-smuggled: 1\r\ncontent-length: 0\r\n\r\n"
AUTH_LINE = f"{AUTH}\r\n".encode()


def head(*lines: bytes, line: bytes = b"POST /v1/messages HTTP/1.1", host: bytes = b"host: relay\r\n") -> bytes:
    """A head with a valid credential."""
    return line + b"\r\n" + host + AUTH_LINE + b"".join(one + b"\r\n" for one in lines) + b"\r\n"


def chunked(*pieces: bytes) -> bytes:
    """A chunked body of these raw pieces."""
    return head(b"transfer-encoding: chunked") + b"".join(pieces)


CL = b"content-length: %d" % len(BODY)
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)

REFUSED = {
    "cl+te": head(b"content-length: 5", b"transfer-encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
    "te+cl": head(b"transfer-encoding: chunked", b"content-length: 5") + b"0\r\n\r\n" + SMUGGLED,
    "two equal lengths": head(CL, CL) + BODY + SMUGGLED,
    "two lengths": head(CL, b"content-length: 0") + BODY + SMUGGLED,
    "a list of lengths": head(b"content-length: %d, %d" % (len(BODY), len(BODY))) + BODY,
    "a signed length": head(b"content-length: +%d" % len(BODY)) + BODY,
    "a negative length": head(b"content-length: -1") + SMUGGLED,
    "a hexadecimal length": head(b"content-length: 0x10") + BODY,
    "a length with a blank": head(b"content-length: 1 0") + BODY,
    "a length of 19 digits": head(b"content-length: 9999999999999999999") + BODY,
    "an empty length": head(b"content-length:") + BODY,
    "a unicode digit": head("content-length: ٣".encode()) + b"abc",
    "te twice": head(b"transfer-encoding: chunked", b"transfer-encoding: identity") + CHUNK + b"0\r\n\r\n",
    "te chunked, chunked": head(b"transfer-encoding: chunked, chunked") + CHUNK + b"0\r\n\r\n",
    "te gzip, chunked": head(b"transfer-encoding: gzip, chunked") + CHUNK + b"0\r\n\r\n",
    "te xchunked": head(b"transfer-encoding: xchunked") + CHUNK + b"0\r\n\r\n",
    "te with a tab inside": head(b"transfer-encoding:\tchunked\t;x") + CHUNK + b"0\r\n\r\n",
    "te identity": head(b"transfer-encoding: identity", CL) + BODY,
    "te in http/1.0": head(b"transfer-encoding: chunked", line=b"POST /v1/messages HTTP/1.0") + CHUNK + b"0\r\n\r\n",
    "a blank before the colon": head(b"content-length : %d" % len(BODY)) + BODY,
    "te, a blank before the colon": head(b"transfer-encoding : chunked") + CHUNK + b"0\r\n\r\n",
    "a folded line": head(b"x-a: 1", b" transfer-encoding: chunked", CL) + BODY,
    "a first line folded": head(b" x-a: 1", CL) + BODY,
    "a bare LF between lines": head(b"x-a: 1\nx-b: 2", CL) + BODY,
    "a bare CR in a value": head(b"x-a: 1\rx-b: 2", CL) + BODY,
    "NUL in a value": head(b"x-a: 1\x002", CL) + BODY,
    "NUL in a name": head(b"x\x00a: 1", CL) + BODY,
    "DEL in a value": head(b"x-a: \x7f", CL) + BODY,
    "no name": head(b": 1", CL) + BODY,
    "no colon": head(b"x-a", CL) + BODY,
    "a colon-less smuggled line": head(b"GET /x HTTP/1.1", CL) + BODY,
    "an 8-bit name": head(b"x-\xe9: 1", CL) + BODY,
    "no host": head(CL, host=b"") + BODY,
    "two hosts": head(CL, b"host: other") + BODY,
    "a host with a quote": head(CL, host=b'host: a","x":"\r\n') + BODY,
    "a host with a path": head(CL, host=b"host: a/b\r\n") + BODY,
    "a host with a user": head(CL, host=b"host: a@b\r\n") + BODY,
    "two credentials": head(AUTH.encode(), CL) + BODY,
    "257 lines": head(*(b"x-%d: 1" % n for n in range(257)), CL) + BODY,
    # the chunked coding
    "a chunk size with a sign": chunked(b"+5\r\nabcde\r\n0\r\n\r\n"),
    "a chunk size with 0x": chunked(b"0x5\r\nabcde\r\n0\r\n\r\n"),
    "a negative chunk size": chunked(b"-5\r\nabcde\r\n0\r\n\r\n"),
    "a chunk size of 16 digits": chunked(b"1000000000000000\r\n"),
    "an empty chunk size": chunked(b"\r\nabcde\r\n0\r\n\r\n"),
    "a chunk size ending in LF": chunked(b"5\nabcde\n0\n\n"),
    "a chunk longer than it says": chunked(b"2\r\nabcde\r\n0\r\n\r\n"),
    "a chunk's end missing": chunked(b"5\r\nabcde0\r\n\r\n"),
    "a CR in an extension": chunked(b"5;a\rb\r\nabcde\r\n0\r\n\r\n"),
    "a NUL in an extension": chunked(b"5;a\x00\r\nabcde\r\n0\r\n\r\n"),
    "an endless extension": chunked(b"5;" + b"a" * 5000),
    "a malformed trailer": chunked(CHUNK, b"0\r\nPOST / HTTP/1.1\r\n\r\n"),
    "a folded trailer": chunked(CHUNK, b"0\r\nx: 1\r\n y\r\n\r\n"),
    "endless trailers": chunked(CHUNK, b"0\r\n", b"x: 1\r\n" * 5000),
    # request lines
    "http/0.9": b"GET /v1/messages\r\n\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18),
    "http/1.2": head(CL, line=b"POST /v1/messages HTTP/1.2") + BODY,
    "http/11": head(CL, line=b"POST /v1/messages HTTP/11") + BODY,
    "lower-case http": head(CL, line=b"POST /v1/messages http/1.1") + BODY,
    "absolute form": head(CL, line=b"POST http://127.0.0.1/v1/messages HTTP/1.1") + BODY,
    "absolute form elsewhere": head(CL, line=b"POST http://169.254.169.254/latest HTTP/1.1") + BODY,
    "authority form": head(line=b"CONNECT 127.0.0.1:22 HTTP/1.1"),
    "asterisk form": head(line=b"OPTIONS * HTTP/1.1"),
    "two blanks": head(CL, line=b"POST  /v1/messages HTTP/1.1") + BODY,
    "a tab for a blank": head(CL, line=b"POST\t/v1/messages HTTP/1.1") + BODY,
    "a blank in the path": head(CL, line=b"POST /v1/mess ages HTTP/1.1") + BODY,
    "a blank at the end": head(CL, line=b"POST /v1/messages HTTP/1.1 ") + BODY,
    "NUL in the path": head(CL, line=b"POST /v1/messages\x00 HTTP/1.1") + BODY,
    "CR in the path": head(CL, line=b"POST /v1/messages\rx HTTP/1.1") + BODY,
    "8 bits in the path": head(CL, line=b"POST /v1/\xff HTTP/1.1") + BODY,
    "a fragment": head(CL, line=b"POST /v1/messages#x HTTP/1.1") + BODY,
    "a method in lower case": head(CL, line=b"post /v1/messages HTTP/1.1") + BODY,
    "a method of 17 letters": head(CL, line=b"POSTPOSTPOSTPOSTP /v1/messages HTTP/1.1") + BODY,
    "TLS": bytes.fromhex("160301020001000001fc0303") + bytes(200) + b"\r\n\r\n",
    "binary": bytes(range(256)) * 4 + b"\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "PROXY protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + head(CL) + BODY,
    "LF line ends": head(CL).replace(b"\r\n", b"\n") + BODY + b"\r\n\r\n",
    "a body on a probe": head(CL, line=b"GET /health HTTP/1.1") + BODY,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_clear_is_refused_and_nothing_goes_upstream(target: Target, name: str) -> None:
    """Smuggling lives on two parsers that disagree; the strict one of the two never passes the bytes on."""
    answers = target.talk(REFUSED[name])

    assert [answer.status for answer in answers] in ([400], [431], [])
    assert all(answer.header("connection") == "close" for answer in answers)
    assert not target.upstream.requests
    assert not target.quiet.requests or all(
        "smuggled" not in one.head.decode("latin-1") for one in target.quiet.requests
    )


@pytest.mark.parametrize(
    "path",
    [
        b"//v1/messages",
        b"/v1//messages",
        b"/v1/messages/",
        b"/v1/messages/..",
        b"/v1/./messages",
        b"/v1/x/../messages",
        b"/%76%31/messages",
        b"/v1/%6d%65ssages",
        b"/v1/messages;x=1",
        b"/v1/messages%00",
        b"/v1/messages%0d%0ax:1",
        b"/V1/messages",
        b"\\v1\\messages".replace(b"\\v1", b"/v1"),
        b"/.env",
        b"/v1/organizations/api_keys",
        # below what is passed on as it came, with the relay's own key
        b"/v1/files/../organizations/api_keys",
        b"/v1/files/%2e%2e/organizations/api_keys",
        b"/v1/files/..%2forganizations",
        b"/v1/files/.%2e/organizations",
        b"/v1/files/..;/organizations",
        b"/v1/files/..\\organizations",
        b"/v1/files//organizations",
        b"/v1/files/./x",
        b"/v1/files/",
        b"/v1/files/a%00b",
        b"/v1/filesystem",
        b"/v1/files/a/b/c/d",
        b"/v1/messages/batches/../../organizations/users",
        b"/v1/messages/batches/x/../../../organizations",
        b"/v1/messages/batches/x/..",
        b"/v1/messages/batches/" + b"x" * 300,
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_no_way_of_writing_a_path_leads_elsewhere(target: Target, method: bytes, path: bytes) -> None:
    """What a provider's server makes of dots and escapes is unknown; the relay's key opens all of its endpoints."""
    length = CL if method == b"POST" else b"x-none: 1"
    answers = target.talk(head(length, line=method + b" " + path + b" HTTP/1.1") + (BODY if method == b"POST" else b""))

    assert [answer.status for answer in answers][:1] in ([404], [405], [400])
    assert not target.upstream.requests


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT", b"OPTIONS", b"PUT", b"PATCH", b"PROPFIND", b"PRI", b"X"])
@pytest.mark.parametrize("path", [b"/v1/files", b"/v1/messages/batches/b1", b"/v1/messages", b"/health"])
def test_a_method_that_could_show_or_change_more_is_refused(target: Target, method: bytes, path: bytes) -> None:
    """TRACE would send the relay's own key back to the client."""
    answers = target.talk(head(line=method + b" " + path + b" HTTP/1.1"))

    assert [answer.status for answer in answers][:1] == [405]
    assert not target.upstream.requests


@pytest.mark.parametrize(
    "lines",
    [
        [b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="],
        [b"upgrade: h2c", b"connection: upgrade, http2-settings", b"http2-settings: AAMAAABkAAQCAAAAAAIAAAAA"],
        [b"upgrade: TLS/1.2", b"connection: Upgrade"],
    ],
)
def test_an_upgrade_is_not_taken_up(target: Target, lines: list[bytes]) -> None:
    """Served as the plain request that it also is; the provider never hears of it."""
    answers = target.talk(head(*lines, CL) + BODY)

    assert [answer.status for answer in answers] == [200]
    passed = target.upstream.requests[0]
    assert not {"upgrade", "connection", "http2-settings"} & {name for name, _ in passed.headers}


def test_the_connection_header_cannot_take_away_what_the_relay_sets(target: Target) -> None:
    """Naming headers as hop-by-hop removes the client's own lines, not the relay's."""
    named = b"connection: x-api-key, host, content-length, authorization, anthropic-version"
    answers = target.talk(head(named, b"anthropic-version: 1", CL) + BODY)

    assert [answer.status for answer in answers] == [200]
    passed = target.upstream.requests[0]
    assert (passed.header("x-api-key"), passed.body) == ("sk-up-loud", BODY)
    assert passed.header("host") == f"127.0.0.1:{target.upstream.port}"
    assert passed.header("anthropic-version") is None


@pytest.mark.parametrize(
    "line",
    [
        "api-key: {}",
        "x-goog-api-key: {}",
        "x-amz-security-token: {}",
        "proxy-authorization: Basic {}",
        "cookie: session={}",
        "Ocp-Apim-Subscription-Key: {}",
    ],
)
def test_credentials_for_others_stay_here(target: Target, line: str) -> None:
    """A client may carry a cloud's or a gateway's credential; this provider is neither."""
    secret = "canary-of-another-place"
    answers = target.talk(head(line.format(secret).encode(), CL) + BODY)

    assert [answer.status for answer in answers] == [200]
    assert secret.encode() not in target.upstream.requests[0].head


@pytest.mark.parametrize("expect", [b"100-continue", b"100-Continue", b"200-ok", b"100-continue, x", b""])
def test_an_expectation_is_met_or_ignored(target: Target, expect: bytes) -> None:
    with target.connect() as client:
        client.sock.sendall(head(b"expect: " + expect, CL))
        if expect.lower() == b"100-continue":
            assert client.head().status == 100
        client.sock.sendall(BODY)
        assert client.answer().status == 200
    assert target.upstream.requests[0].header("expect") is None


def test_an_old_client_is_not_sent_an_interim_answer(target: Target) -> None:
    """HTTP/1.0 knows none, and would take it for the answer."""
    with target.connect() as client:
        client.sock.sendall(head(b"expect: 100-continue", CL, line=b"POST /v1/messages HTTP/1.0"))
        client.sock.sendall(BODY)
        assert client.answer().status == 200


# --- bodies -----------------------------------------------------------------------------------------------------------


def post(body: bytes, *lines: bytes) -> bytes:
    """A request with this body."""
    return head(*lines, b"content-length: %d" % len(body)) + body


BOMB = gzip.compress(b'{"model":"claude-test","x":"' + b"a" * (8 << 20) + b'"}')


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (BOMB, [b"content-encoding: gzip"]),
        (zlib.compress(BODY), [b"content-encoding: deflate"]),
        (b"\x00" * 1000, []),
        (b"\xff\xfe" + BODY.decode().encode("utf-16-le"), []),
        (b"\xef\xbb\xbf" + BODY, []),
        (b'{"model":"claude-\xff","stream":false}', []),
        (b'{"model":"claude\x00test","messages":[]}', []),
        (b'{"model":' + b"[" * 100_000, []),
        (b"[" * 900_000, []),
        (b'{"model":"claude-x"' + b',"a":{' * 100_000, []),
        (b'{"model":"claude-x","stream":"yes"}', []),
        (b'{"model":["claude-x"]}', []),
        (b'{"model":null}', []),
        (b'{"model":""}', []),
        (b"null", []),
        (b'"model"', []),
        (b"{" * 5 + b"}" * 5, []),
        (BODY + BODY, []),
        (BODY[:-1], []),
    ],
    ids=range(19),
)
def test_a_body_that_is_not_what_it_should_be_is_a_400(target: Target, body: bytes, lines: list[bytes]) -> None:
    """No decompression, no recursion, no guess: and the connection goes on."""
    with target.connect() as client:
        client.sock.sendall(post(body, *lines))
        assert client.answer().status == 400
        client.sock.sendall(post(BODY))
        assert client.answer().status == 200

    assert [one.body for one in target.upstream.requests] == [BODY]


@pytest.mark.parametrize(
    "body",
    [
        BODY[:-1] + b',"x":"\\ud800"}',
        BODY[:-1] + b',"x":"\\u0000\\u001b[2J\\r\\n"}',
        BODY[:-1] + b',"x":' + b"[" * 400 + b"]" * 400 + b"}",
        BODY[:-1] + b',"x":1e99999,"y":-0,"z":' + b"9" * 5000 + b"}",
        b'{"model":"other","model":"claude-test"}',
    ],
    ids=["surrogate", "control", "deep", "numbers", "twice"],
)
def test_odd_but_valid_json_goes_on_as_it_came(target: Target, body: bytes) -> None:
    assert [answer.status for answer in target.talk(post(body))] == [200]
    assert [one.body for one in target.upstream.requests] == [body]


def test_a_gigantic_length_is_refused_before_a_byte_of_it(target: Target) -> None:
    for length in (b"1048577", b"99999999999999999"):
        answers = target.talk(head(b"content-length: " + length))
        assert [answer.status for answer in answers] == [413]
    assert not target.upstream.requests


def test_a_chunked_body_of_tiny_pieces_takes_no_more_than_its_size(target: Target) -> None:
    """As objects of their own, pieces of two bytes would take thirty times as much."""
    before_mb = target.memory_mb()
    filler = BODY[:-1] + b',"x":"'
    tiny = b"2\r\nxx\r\n" * 400_000
    with target.connect() as client:
        client.sock.sendall(head(b"transfer-encoding: chunked") + b"%x\r\n%b\r\n" % (len(filler), filler))
        client.sock.sendall(tiny)
        target.serves_others()
        assert target.memory_mb() - before_mb < 16
        client.sock.sendall(b'2\r\n"}\r\n0\r\n\r\n')
        assert client.answer().status == 200
    assert len(target.upstream.requests[0].body) == len(filler) + 800_002


def test_extensions_and_trailers_are_dropped(target: Target) -> None:
    """They are of this hop; the provider gets a body with a length."""
    data = chunked(
        b"%x;name=value\r\n%b\r\n" % (len(BODY), BODY), b"0;last\r\nx-trailer: 1\r\ncontent-length: 7\r\n\r\n"
    )
    assert [answer.status for answer in target.talk(data)] == [200]
    passed = target.upstream.requests[0]
    assert passed.body == BODY
    assert b"trailer" not in passed.head
    assert b"name=value" not in passed.head


# --- many at once, and slowly -----------------------------------------------------------------------------------------


def test_garbage_behind_a_request_is_refused_after_its_answer(target: Target) -> None:
    with target.connect() as client:
        client.sock.sendall(post(BODY) + b"\x00\x01garbage\r\n\r\n" + post(BODY))
        assert client.answer().status == 200
        assert client.answer().status == 400
        assert client.is_closed()
    assert len(target.upstream.requests) == 1


def test_a_smuggled_request_in_a_body_stays_in_the_body(target: Target) -> None:
    body = b'{"model":"claude-test","x":"' + SMUGGLED.replace(b"\r\n", b"\\r\\n") + b'"}'
    with target.connect() as client:
        client.sock.sendall(post(body) * 3)
        assert [client.answer().status for _ in range(3)] == [200] * 3
    assert [one.body for one in target.upstream.requests] == [body] * 3


def test_a_flood_of_pipelined_requests_waits_outside(target: Target) -> None:
    """One at a time is served, and what is read ahead is bounded; the rest stays in the sender's own buffers."""
    before_mb = target.memory_mb()
    with target.connect() as client:
        client.sock.setblocking(False)
        sent = 0
        many = post(BODY) * 200
        with contextlib.suppress(BlockingIOError):
            for _ in range(2000):
                sent += client.sock.send(many)
        assert target.memory_mb() - before_mb < 16
        target.serves_others()
    assert sent < 2000 * len(many)


def test_a_flood_of_empty_lines_costs_nothing(target: Target) -> None:
    """They are to be passed over before a request; one after another that took the square of their number."""
    with target.connect() as client:
        client.sock.sendall(b"\r\n" * (2 << 20))
        target.serves_others(within_s=2.0)
        client.sock.sendall(post(BODY))
        assert client.answer().status == 200


def test_slow_heads_bodies_and_chunks_are_given_up(target: Target) -> None:
    """All at once, while others are served; each is told so and hung up on."""
    beginnings = [
        b"",
        b"P",
        b"POST /v1/messages HTTP/1.1\r\nhost: r",
        b"\r",
        head(CL),
        head(CL) + BODY[:5],
        head(b"transfer-encoding: chunked"),
        head(b"transfer-encoding: chunked") + b"5",
        head(b"transfer-encoding: chunked") + b"5\r\nab",
        head(b"transfer-encoding: chunked") + CHUNK + b"0\r\n",
    ]
    slow = [target.connect() for _ in range(5) for _ in beginnings]
    for client, data in zip(slow, beginnings * 5, strict=True):
        client.sock.sendall(data)
    target.serves_others()
    for client, data in zip(slow, beginnings * 5, strict=True):
        if data:  # who has sent nothing is idle, and may be for minutes
            assert client.answer().status == 408
            assert client.is_closed()
        client.sock.close()
    assert not target.upstream.requests


def test_a_head_that_comes_in_drops_is_given_up_too(target: Target) -> None:
    """Its time is for the whole of it, however busily it comes."""
    with target.connect() as client:
        client.sock.settimeout(0.05)
        began = time.monotonic()
        client.sock.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: r\r\n")
        answer = b""
        while not answer and time.monotonic() - began < 10:
            try:
                client.sock.sendall(b"x-drop: 1\r\n")
                answer = client.sock.recv(4096)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_shuts_its_sending_half_has_left(target: Target) -> None:
    """Its upstream request ends at once."""
    gone = []

    def silent(request: Request, wire: Wire) -> None:
        gone.append(wire.wait_gone(10))

    target.upstream.answer = silent
    with target.connect() as client:
        client.sock.sendall(post(BODY))
        until(lambda: target.upstream.requests, "the request is upstream")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.is_closed()
    until(lambda: gone, "the provider is told")


def test_a_client_that_breaks_off_anywhere_leaves_nothing(target: Target) -> None:
    """A reset after every few bytes of a request; nothing incomplete goes upstream."""
    whole = post(BODY)
    for size in range(1, len(whole), 7):
        with target.connect() as client:
            client.sock.sendall(whole[:size])
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert not target.upstream.requests


def test_a_reader_who_never_reads_holds_only_his_own(target: Target) -> None:
    """Backpressure goes back to the provider."""
    before_mb = target.memory_mb()

    def endless(request: Request, wire: Wire) -> None:
        wire.begin_stream()
        for _ in range(400):
            wire.chunk(b"event: x\ndata: " + b"y" * (128 << 10) + b"\n\n")
        wire.end_stream()

    target.upstream.answer = endless
    clients = [target.connect() for _ in range(4)]
    for client in clients:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sock.sendall(post(BODY[:-1] + b',"stream":true}'))
    until(lambda: len(target.upstream.requests) == 4, "all are upstream")
    target.serves_others()
    assert target.memory_mb() - before_mb < 24
    for client in clients:
        client.sock.close()


def test_wrong_credentials_are_told_to_stop_and_right_ones_served(target: Target) -> None:
    """More than sixty in a minute from one address: a 429 that costs nothing more. Who shares the address is served."""
    wrong = b"POST /v1/messages HTTP/1.1\r\nhost: r\r\nx-api-key: guess-%d\r\n" + CL + b"\r\n\r\n" + BODY
    answers = [target.talk(wrong % n)[0] for n in range(70)]

    assert {answer.status for answer in answers[:60]} <= {401, 429}
    assert {answer.status for answer in answers[60:]} == {429}
    assert int(answers[-1].header("retry-after") or 0) in range(1, 61)
    assert answers[-1].header("x-should-retry") == "false"
    assert json.loads(answers[-1].body)["error"]["type"] == "rate_limit_error"
    assert len(target.relay.events("strangers_limited")) == 1
    assert "guess-" not in target.relay.output
    assert not target.upstream.requests


# --- what a client sends must not reach heads, logs or metrics as more than a value ---------------------------------


def test_fields_of_a_request_cannot_forge_lines_or_heads(target: Target) -> None:
    """Model, session and agent are the client's own words, and go to logs, records and screens."""
    session, agent = b'a"b\\c</script>{}\xff%0d%0a', b"`;|&$(x)\xc2\x9b31m"
    model = 'claude-"}\\n{"event":"forged"}\r\nx-forged: 1\x1b[2J\u2028\u202e'
    body = json.dumps({"model": model, "messages": []}).encode()
    data = post(body, b"x-claude-code-session-id: " + session, b"x-claude-code-agent-id: " + agent)
    answers = target.talk(data)

    assert [answer.status for answer in answers] == [200]
    assert all("forged" not in name for name, _ in answers[0].headers)
    until(lambda: [one for one in target.relay.events("request_done") if "forged" in str(one["model_asked"])], "told")
    assert not target.relay.events("forged")
    raw = target.relay.log.read_bytes()
    assert b"\x1b" not in raw
    assert "\u2028".encode() not in raw
    assert b"\xff" not in raw


def test_a_secret_in_the_wrong_field_is_masked(target: Target) -> None:
    """A key pasted as the model's name, or as the session."""
    secret = b"sk-ant-api03-pasted-into-the-wrong-place"
    target.talk(post(b'{"model":"' + secret + b'","messages":[]}', b"x-claude-code-session-id: " + secret))
    target.talk(post(BODY, b"x-claude-code-agent-id: Bearer " + secret))
    until(lambda: target.relay.events("request_done"), "told")
    target.serves_others()

    assert secret.decode() not in target.relay.output
    assert KEY not in target.relay.output


def test_long_fields_are_cut(target: Target) -> None:
    """A line of the log, a record and a label have a size that nobody else decides."""
    long = b"L" * 60_000
    target.upstream.answer = lambda request, wire: wire.send(
        json_answer(MESSAGE, "200 OK", f"request-id: {'R' * 60_000}")
    )
    data = post(
        b'{"model":"claude-' + long + b'"}', b"x-claude-code-session-id: " + long, b"x-claude-code-agent-id: " + long
    )
    assert [answer.status for answer in target.talk(data)] == [200]

    def told() -> list[str]:
        return [line for line in target.relay.output.splitlines() if "LLLL" in line]

    until(told, "the request's line")
    assert all(len(line) < 4096 for line in told())


def test_random_bytes_never_hurt(target: Target) -> None:
    """A whole valid request with some bytes changed: an answer or an end, and the body never in another shape."""
    seed = int.from_bytes(os.urandom(4))
    print("seed", seed)
    rolls = random.Random(seed)
    whole = post(BODY, b"x-a: 1", b"anthropic-version: 2023-06-01")
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rolls.randint(1, 4)):
            data[rolls.randrange(len(data))] = rolls.randrange(256)
        with target.connect(3.0) as client:
            client.sock.sendall(bytes(data) + b"\r\n\r\n" * 3)
            client.sock.shutdown(socket.SHUT_WR)
            try:
                while client.more():
                    pass
            except OSError:
                pass
    for request in target.upstream.requests:
        assert len(request.body) == len(BODY)
