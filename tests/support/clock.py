"""A wall clock that tests set while real processes run. Needs a C compiler, and a system that preloads libraries."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("set_clock.c")


class Clock:
    """The wall clock of all processes that are started with `env`; a test that cannot have one is skipped."""

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None or sys.platform != "linux":
            pytest.skip("setting the clock of processes takes a C compiler, on Linux")
        library, offset = directory / "set_clock.so", directory / "clock_offset"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"{compiler} cannot make a library here: {made.stderr[:300]}")
        offset.write_bytes(bytes(8))
        self.env = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}
        with offset.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 8)

    def set(self, off_s: int) -> None:
        """From now on it is so many seconds later than it really is; earlier, if negative."""
        self._offset[:] = struct.pack("=q", off_s)
