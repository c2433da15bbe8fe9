"""What both planes' logs make of text that comes from outside."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Literal

import pytest
from ccr_control.shell import log as control
from ccr_data.shell import logs as data

EVIL = "a\nb\r\x1b[2J\x9b31m\u2028\u202e\x7f\ufeff\ud800"
SECRET = "sk-ant-api03-abcdefghijkl"


@pytest.mark.parametrize("plane", [control, data], ids=["control", "data"])
@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.parametrize("around", ["{}", "\n{}", "\x1b{}", "\u2028{}", "Bearer\t{}"])
def test_no_text_fakes_a_line_steers_a_terminal_or_shows_a_credential(
    plane: object, log_format: Literal["json", "text"], around: str
) -> None:
    """In a message, a field, a nested value or a traceback, also right behind what is escaped."""
    lines: list[bytes] = []
    text = EVIL + around.format(SECRET)
    with plane.logging_to(lines.append, log_format):  # type: ignore[attr-defined]
        log = plane.Log("test")  # type: ignore[attr-defined]
        log.warning("odd", said=text, nested={"deep": [text]})
        logging.getLogger("library").error("failed: %s", text)
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("broke")
    said = b"".join(lines).decode()

    assert SECRET[-12:] not in said
    assert said.count("***") >= 4
    assert all(line.isprintable() for line in said.split("\n")), ascii(said)


@pytest.mark.parametrize("stderr_write", [control._Stderr, data.stderr_write], ids=["control", "data"])
def test_a_line_after_one_without_room_is_a_line_of_its_own(stderr_write: Callable[[int], object]) -> None:
    """Whoever else writes to the same file may have left half a line there, too."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    made = stderr_write(writer)
    write = made if callable(made) else made.write  # type: ignore[attr-defined]
    write(b"one\n")
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    with pytest.raises(BlockingIOError):
        write(b"two\n")
    before = os.read(reader, 1 << 20)
    write(b"three\n")
    write(b"four\n")
    os.close(writer)
    assert before.startswith(b"one\nx")
    assert os.read(reader, 1 << 20) == b"\nthree\nfour\n"
    os.close(reader)
