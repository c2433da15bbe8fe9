"""Lines of a log that could not be written are counted, and told when something can be written again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from ccr_control.shell import log as control
from ccr_data.shell import logs as data
from support.serving import until


class Disk:
    """Takes lines while there is room."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tries = 0
        self.has_room = False

    def write(self, text: bytes) -> None:
        self.tries += 1
        if not self.has_room:
            raise OSError(28, "No space left on device")
        self.lines += text.decode().splitlines()


Logging = Callable[[Disk], AbstractContextManager[object]]
LOGGING: dict[str, Logging] = {
    "control": lambda disk: control.logging_to(disk.write, "json"),
    "data": lambda disk: data.logging_to(disk.write, "json", is_terminal=False),
}


@pytest.mark.parametrize("plane", LOGGING)
def test_what_was_lost_is_told(plane: str) -> None:
    disk, logger = Disk(), logging.getLogger("ccr.test")
    with LOGGING[plane](disk):
        for number in range(5):
            logger.warning("lost %d", number)
        until(lambda: disk.tries >= 5, "each was tried")
        disk.has_room = True
        logger.warning("kept")
    assert len(disk.lines) == 2
    assert '"log_lines_dropped"' in disk.lines[0]
    assert '"lines":5' in disk.lines[0].replace(" ", "")
    assert '"kept"' in disk.lines[1]
