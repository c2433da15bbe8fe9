"""A spool that was torn or damaged anywhere is read up to there, and nothing false is read."""

from __future__ import annotations

import io

from ccr_data.core.frames import MAGIC, Frame, frame, frames_in
from hypothesis import given
from hypothesis import strategies as st

batches = st.lists(st.tuples(st.integers(1, 1 << 40), st.binary(max_size=40)), max_size=8)


def read(data: bytes) -> list[Frame]:
    return list(frames_in(io.BytesIO(data).read))


def written(contents: list[tuple[int, bytes]]) -> bytes:
    return b"".join(frame(number, payload) for number, payload in contents)


@given(batches)
def test_what_was_written_is_read(contents: list[tuple[int, bytes]]) -> None:
    found = read(written(contents))

    assert [(one.number, one.payload) for one in found] == contents
    file = MAGIC + written(contents)
    assert all(file[one.start : one.end] == one.payload for one in found)


@given(batches, st.data())
def test_a_torn_file_is_read_up_to_the_tear(contents: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """A process may be killed, and a disk may run full, in the middle of a frame."""
    whole = written(contents)
    cut = data.draw(st.integers(0, len(whole)))

    found = read(whole[:cut])

    assert [(one.number, one.payload) for one in found] == contents[: len(found)]
    assert not found or found[-1].end - len(MAGIC) <= cut
    assert len(found) == len(contents) or cut < len(written(contents[: len(found) + 1]))


@given(batches.filter(bool), st.data())
def test_a_damaged_frame_ends_the_reading(contents: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """A flipped bit anywhere: in a length, a checksum, a number or a payload."""
    whole = bytearray(written(contents))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))

    found = read(bytes(whole))

    sound = sum(1 for index in range(len(contents)) if len(written(contents[: index + 1])) <= place)
    assert [(one.number, one.payload) for one in found] == contents[:sound]


@given(batches, st.integers(1, 200))
def test_zeros_at_the_end_are_no_frames(contents: list[tuple[int, bytes]], count: int) -> None:
    """Some file systems leave them behind after a power cut."""
    assert len(read(written(contents) + bytes(count))) == len(contents)
