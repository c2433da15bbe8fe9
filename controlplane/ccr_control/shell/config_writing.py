"""Writes the configuration's file: whole or not at all, with the mode it had, and a copy of what was there before."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ccr_control.core.errors import NotPossible

BACKUP_ENDING = ".before"


@contextlib.contextmanager
def written(path: Path, content: bytes) -> Iterator[Path]:
    """Have the new content ready beside the file while the block runs; `put` there puts it in place.

    Yields the ready file. It is gone at the end if it was not put in place. Raises NotPossible.
    """
    place = Path(os.path.realpath(path))  # a symbolic link stays one
    try:
        mode = stat.S_IMODE(place.stat().st_mode)
        descriptor, name = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".new", dir=place.parent)
    except OSError as error:
        raise _cannot(path, error) from error
    ready = Path(name)
    try:
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
        except OSError as error:
            raise _cannot(path, error) from error
        yield ready
    finally:
        ready.unlink(missing_ok=True)


def put(ready: Path, path: Path) -> None:
    """Put the ready file in place; what was there is kept with BACKUP_ENDING. Raises NotPossible."""
    place = Path(os.path.realpath(path))
    backup = place.with_name(place.name + BACKUP_ENDING)
    half = place.with_name(f".{place.name}{BACKUP_ENDING}.new")
    try:
        half.unlink(missing_ok=True)
        shutil.copy2(place, half)  # content, mode and times
        half.replace(backup)
        ready.replace(place)
        descriptor = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise _cannot(path, error) from error


def _cannot(path: Path, error: OSError) -> NotPossible:
    why = error.strerror or str(error)
    return NotPossible(
        "FILE_NOT_WRITABLE", f"{path} cannot be written: {why}; change it where it comes from, then reload"
    )
