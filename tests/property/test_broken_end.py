"""A stream of chunks that breaks off anywhere can be ended so that it is well-formed HTTP."""

from __future__ import annotations

from itertools import pairwise

from ccr_data.core.framing import (
    LAST_CHUNK,
    MOST_JOINED,
    SHORT,
    VERBATIM,
    broken_end,
    chunk,
    discarding,
    is_event_end,
    joined,
    missing_end,
)
from ccr_data.core.http1 import ChunkWalker
from hypothesis import given
from hypothesis import strategies as st

ERROR = b"event: error\ndata: {}\n\n"
payloads = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
sizes = st.sampled_from([b"%x", b"%X", b"0%x", b"000%x", b"%x;a=b", b"%x ;x"])


def walked(body: bytes, cuts: list[int]) -> tuple[ChunkWalker, bytes]:
    """What a walker knows after these bytes, in pieces; and their payload."""
    walker, payload, at = ChunkWalker(), b"", 0
    for cut in [*sorted(cut for cut in cuts if cut < len(body)), len(body)]:
        piece, at = body[at:cut], cut
        if piece:
            walker.feed(piece)
            payload += b"".join(piece[start:end] for start, end in walker.ranges)
    return walker, payload


@given(payloads, st.data())
def test_a_broken_body_is_completed(parts: list[bytes], data: st.DataObject) -> None:
    """All payload that came is in it, then some filling, and the error last; unless the body's own end had begun."""
    whole = b"".join(data.draw(sizes) % len(part) + b"\r\n" + part + b"\r\n" for part in parts) + LAST_CHUNK
    body = whole[: data.draw(st.integers(0, len(whole)))]
    walker, payload = walked(body, data.draw(st.lists(st.integers(0, len(whole)))))
    end = broken_end(discarding(payload, len(payload)) + ERROR, VERBATIM, walker)
    if end is None:
        assert len(body) > len(whole) - len(LAST_CHUNK) + 1, "only behind 0 and CR nothing can follow"
        return
    checked, completed = walked(body + end, [])
    assert checked.is_done
    assert checked.rest_at == len(body + end)
    assert completed.startswith(payload)
    assert completed.rstrip(b"\n").endswith(ERROR.rstrip(b"\n"))


@given(payloads, st.data())
def test_only_the_end_may_be_missing(parts: list[bytes], data: st.DataObject) -> None:
    """What is missing behind the last payload is exactly what the server would have sent."""
    whole = b"".join(map(chunk, parts)) + LAST_CHUNK
    body = whole[: data.draw(st.integers(0, len(whole)))]
    walker, payload = walked(body, data.draw(st.lists(st.integers(0, len(whole)))))
    end = missing_end(VERBATIM, walker)
    if end is not None and not walker.is_done:
        checked, completed = walked(body + end, [])
        assert checked.is_done
        assert completed == payload
    if payload == b"".join(parts) and not walker.is_done:
        assert end == whole[len(body) :]


@given(st.text("\r\nx", max_size=40), st.lists(st.integers(0, 40)))
def test_events_end_where_they_end_however_they_were_cut(text: str, cuts: list[int]) -> None:
    """A read may end between the two newlines of the last event."""
    stream = text.encode()
    last = (b"", 0)
    for start, end in pairwise([0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]):
        last = (stream, end) if end - start >= SHORT else joined(*last, stream[start:end])
        assert is_event_end(*last) == is_event_end(stream[:end], end)


def test_a_stream_of_single_bytes_is_not_kept() -> None:
    last, longest = (b"", 0), 0
    for _ in range(3 * MOST_JOINED):
        last = joined(*last, b"x")
        longest = max(longest, last[1])
    assert longest <= MOST_JOINED + SHORT
