"""The relay's own HTTP parsing: strict where servers disagree, and never dependent on how bytes were cut."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import httptools
import pytest
from ccr_data.core.errors import BadRequest, UpstreamBroken
from ccr_data.core.http1 import ChunkWalker, LineMemory, RequestHeads, parse_answer_head, parse_request_head
from hypothesis import given, settings
from hypothesis import strategies as st

TOKEN = "!#$%&'*+.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-"
NAMES = st.text(TOKEN, min_size=1, max_size=12) | st.sampled_from(
    [
        "Content-Length",
        "content-length",
        "Transfer-Encoding",
        "Host",
        "Connection",
        "anthropic-beta",
        "X-Api-Key",
        "Cookie",
    ]
)
VALUES = st.text(st.characters(codec="latin-1"), max_size=20) | st.sampled_from(
    [
        "chunked",
        "12",
        "0",
        "+5",
        "5, 5",
        "identity",
        "close",
        "keep-alive, x-foo",
        " padded ",
        "a\rb",
        "a\nb",
        "gzip, chunked",
    ]
)
SEPARATORS = st.sampled_from([": ", ":", " : ", ":\t", ""])
ENDS = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n "])


class Oracle:
    """llhttp, the parser of Node.js."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.is_complete = True


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    line = draw(
        st.sampled_from(
            ["POST /v1/messages?beta=true HTTP/1.1", "GET / HTTP/1.1", "POST /x y HTTP/1.1", "post / HTTP/1.1"]
        )
    )
    lines = draw(st.lists(st.tuples(NAMES, SEPARATORS, VALUES, ENDS), max_size=6))
    text = line + "\r\nHost: relay\r\n" + "".join("".join(parts) for parts in lines)
    return text.encode("latin-1")


@settings(max_examples=500)
@given(heads())
def test_what_passes_here_passes_in_llhttp_with_the_same_headers(head: bytes) -> None:
    """Two parsers that read one message differently are how requests are smuggled."""
    if not head.endswith(b"\r\n"):
        return
    try:
        ours = parse_request_head(head[:-2], LineMemory(of_request=True))
    except BadRequest:
        return
    oracle = Oracle()
    parser = httptools.HttpRequestParser(oracle)
    try:
        parser.feed_data(head + b"\r\n")
    except httptools.HttpParserUpgrade:
        return
    assert oracle.is_complete
    theirs = dict(oracle.headers)
    for name, value in ours.special.items():
        if name in (b"content-length", b"transfer-encoding", b"host"):
            assert theirs[name].strip() == value
    named = {token.strip().lower() for token in theirs.get(b"connection", b"").split(b",")}
    for line in ours.lines:
        name, _, value = line.partition(b":")
        assert (name.lower(), value.strip(b" \t")) in [(n, v.strip(b" \t")) for n, v in oracle.headers]
        assert name.lower() not in named - {b"close", b"keep-alive"}


@given(st.lists(st.tuples(st.sampled_from(range(4)), st.integers(0, 10**6), st.booleans()), min_size=1, max_size=8))
def test_a_head_read_after_others_is_read_as_if_alone(requests: list[tuple[int, int, bool]]) -> None:
    """What a connection remembers of its last head changes nothing but the time it takes."""
    memory = LineMemory(of_request=True)
    reader = RequestHeads(memory)
    shapes = (
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nx-api-key: k1\r\n{}",
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nx-api-key: k2\r\n{}",
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\n{}\r\nx-api-key: k1",
        "GET /v1/models HTTP/1.1\r\nHost: a\r\nx-api-key: k1\r\nx-n: {}",
    )
    before = b""
    for shape, length, is_odd in requests:
        line = f"content-length: {length}" if not is_odd else f"content-length: {length}\r\ncontent-length: {length}"
        block = shapes[shape].format(line).encode()
        try:
            expected = parse_request_head(block, memory)
        except BadRequest:
            with pytest.raises(BadRequest):
                reader.read(block)
            before = b""
            continue
        head = reader.read(block)
        assert (head.target, head.lines, head.content_length) == (
            expected.target,
            expected.lines,
            expected.content_length,
        )
        assert head.special.get(b"x-api-key") == expected.special.get(b"x-api-key")
        assert reader.is_repeated <= (block.split(b"content-length")[0] == before.split(b"content-length")[0])
        before = block


@given(st.binary(max_size=200))
def test_any_bytes_as_a_request_head_are_refused_or_parsed(head: bytes) -> None:
    """Nothing but BadRequest ever comes out of hostile input."""
    with contextlib.suppress(BadRequest):
        parse_request_head(head, LineMemory(of_request=True))


@given(st.binary(max_size=200))
def test_any_bytes_as_an_answer_head_are_refused_or_parsed(head: bytes) -> None:
    with contextlib.suppress(UpstreamBroken):
        parse_answer_head(b"HTTP/1.1 200 OK\r\n" + head, LineMemory(of_request=False))


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: +5",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Host: other",
        b"X-Foo : bar",
        b"X-Foo: bar\n folded",
        b" leading: space",
        b"X-Foo: a\x00b",
        b"X-Foo: a\rb",
        b"x-api-key: a\r\nx-api-key: b",
    ],
)
def test_ambiguous_framing_and_malformed_lines_are_refused(lines: bytes) -> None:
    """Each is a known way to make two servers disagree about a message (RFC 9112, sections 5 and 6)."""
    with pytest.raises(BadRequest):
        parse_request_head(b"POST / HTTP/1.1\r\nHost: relay\r\n" + lines, LineMemory(of_request=True))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"date",
                    b"cf-ray",
                    b"request-id",
                    b"anthropic-ratelimit-tokens-limit",
                    b"content-type",
                    b"alt-svc",
                    b"Date",
                ]
            ),
            st.sampled_from([b" 1", b"1 ", b"\t2\t", b"a\x00", b"a\rb", b"\xff", b""]),
        ),
        max_size=12,
    )
)
def test_what_is_remembered_of_names_changes_nothing(lines: list[tuple[bytes, bytes]]) -> None:
    """A line of a known name is read as one of a new name is, and refused like it."""

    def parsed(memory: LineMemory, head: bytes) -> object:
        try:
            return vars(parse_answer_head(head, memory))
        except UpstreamBroken as error:
            return str(error)

    memory = LineMemory(of_request=False)
    for name, value in lines:
        head = b"HTTP/1.1 200 OK\r\nx-first: 1\r\n%b:%b" % (name, value)
        assert parsed(memory, head) == parsed(LineMemory(of_request=False), head)
    whole = b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(b"%b:%b" % line for line in lines)
    assert parsed(memory, whole) == parsed(LineMemory(of_request=False), whole)


def test_secrets_are_not_remembered() -> None:
    """The memory of header lines outlives requests; a credential must not."""
    memory = LineMemory(of_request=True)
    for _ in range(2):
        parse_request_head(
            b"POST / HTTP/1.1\r\nHost: a\r\nx-api-key: sk-secret\r\nAuthorization: Bearer sk-secret\r\nx-other: 1",
            memory,
        )

    assert b"sk-secret" not in b"".join([*memory._known, *memory._names])
    assert len(memory) == 2


def test_the_memory_of_lines_is_bounded() -> None:
    """A client that invents headers must not make the relay grow."""
    memory = LineMemory(of_request=True)
    for number in range(10_000):
        parse_request_head(b"POST / HTTP/1.1\r\nHost: a\r\nx-odd: %d" % number, memory)

    assert len(memory) <= 4096


def chunked(pieces: list[bytes], extension: bytes, trailer: bytes) -> bytes:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece)
    return body + b"0\r\n" + trailer + b"\r\n"


@given(
    pieces=st.lists(st.binary(max_size=40), max_size=8),
    extension=st.sampled_from([b"", b";a=b", b" ;x", b" "]),
    trailer=st.sampled_from([b"", b"x-sum: 1\r\n"]),
    rest=st.binary(max_size=10),
    cuts=st.lists(st.integers(0, 500), max_size=12),
)
def test_a_chunked_body_is_read_the_same_however_it_is_cut(
    pieces: list[bytes], extension: bytes, trailer: bytes, rest: bytes, cuts: list[int]
) -> None:
    """A network may split a body anywhere, even inside a chunk's size."""
    coded = chunked(pieces, extension, trailer)
    wire = coded + rest
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    walker = ChunkWalker()
    payload = b""
    passed = 0
    for start, end in pairwise(edges):
        data = wire[start:end]
        walker.feed(data)
        payload += b"".join(data[a:b] for a, b in walker.ranges)
        if walker.is_done:
            passed = start + walker.rest_at
            break
    assert walker.is_done
    assert payload == b"".join(pieces)
    assert passed == len(coded)


@pytest.mark.parametrize("size", [b"+5", b"-5", b"0x5", b"5_0", b" 5", b"", b"g", b"f" * 17, b"5\n"])
def test_odd_chunk_sizes_are_refused(size: bytes) -> None:
    """Python's int() would take several of them."""
    with pytest.raises(UpstreamBroken):
        ChunkWalker().feed(size + b"\r\nhello\r\n0\r\n\r\n")


def test_a_chunk_longer_than_its_size_is_refused() -> None:
    with pytest.raises(UpstreamBroken):
        ChunkWalker().feed(b"5\r\nhello!\r\n0\r\n\r\n")
