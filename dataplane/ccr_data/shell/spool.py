"""Batches on disk, for a successor: the spool that a process writes, and those that dead ones left behind.

Every spool file is locked (flock) by the process that writes or delivers it, from before it has its name; a lock
that can be had means that its owner is dead. All methods block and raise OSError: call them off the loop.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ccr_data.core.batches import Unspooled, Waiting
from ccr_data.core.frames import MAGIC, frame, frames_in
from ccr_data.shell.logs import Log
from ccr_data.shell.node_dir import NodeDir, make_private, replace_file, write_all
from ccr_data.shell.usage_wire import journal_of

MAX_SPOOL_BYTES = 64 << 20

log = Log("usage")


class Spool:
    """The spool of this process. The file exists only while it is needed."""

    def __init__(self, directory: NodeDir, journal: str, max_bytes: int = MAX_SPOOL_BYTES) -> None:
        self.path = directory.spool(journal)
        self.size_bytes = 0
        self._directory = directory
        self._max_bytes = max_bytes
        self._descriptor: int | None = None
        self._lock = threading.Lock()  # a cancelled caller does not stop its thread

    def write(self, new: Unspooled, everything: Unspooled) -> Unspooled:
        """Add what is new; where that would grow too large, replace the file with everything that still waits.

        Returns which of the two was written.
        """
        with self._lock:
            added = b"".join(frame(number, payload) for number, payload in new.frames())
            if self._descriptor is not None and self.size_bytes + len(added) <= self._max_bytes:
                self._append(self._descriptor, added)
                return new
            self._replace([frame(number, payload) for number, payload in everything.frames()])
            return everything

    def _append(self, descriptor: int, data: bytes) -> None:
        try:
            write_all(descriptor, data)
        except OSError:
            os.ftruncate(descriptor, self.size_bytes)  # half a frame would hide what is written behind it
            os.lseek(descriptor, self.size_bytes, os.SEEK_SET)
            raise
        os.fsync(descriptor)
        self.size_bytes += len(data)

    def _replace(self, frames: list[bytes]) -> None:
        make_private(self.path.parent, self._directory.state_dir)
        descriptor = replace_file(self.path, [MAGIC, *frames], _lock_exclusively)
        self._close()
        self._descriptor = descriptor
        self.size_bytes = len(MAGIC) + sum(map(len, frames))

    def remove(self) -> None:
        """Nothing in it is needed any more."""
        with self._lock:
            if self._descriptor is not None:
                self.path.unlink(missing_ok=True)
                self._close()

    def close(self) -> None:
        """Leave the file to a successor."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        self.size_bytes = 0
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Span:
    """Where in a file a batch is."""

    start: int
    length: int


class Orphan:
    """The spool of a dead process, ours to deliver."""

    def __init__(self, path: Path, descriptor: int, size_bytes: int, waiting: Waiting[Span]) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.waiting = waiting
        self._descriptor = descriptor  # -1: closed

    def payload(self, span: Span) -> bytes:
        """A batch's bytes."""
        payload = os.pread(self._descriptor, span.length, span.start)
        if len(payload) < span.length:
            raise OSError(f"{self.path} was shortened by somebody else")
        return payload

    def remove(self) -> None:
        """All of it is acknowledged."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leave it to another process, or to a later attempt."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:  # else its number may be somebody else's by now
            os.close(descriptor)


def adopt_orphans(directory: NodeDir) -> list[Orphan]:
    """The spools whose owners are dead, of all nodes of this machine."""
    return Adoption(directory).look()


class Adoption:
    """Looks for spools whose owners are dead, again and again; what is wrong with one is told once."""

    def __init__(self, directory: NodeDir) -> None:
        self._directory = directory
        self._unfit: set[tuple[Path, int]] = set()  # with the time of their last change: they may become others
        self._told: set[tuple[Path, int]] = set()

    def look(self) -> list[Orphan]:
        """Those that have become orphans since the last time."""
        adopted = []
        for path in self._directory.all_spools():
            seen = (path, _changed_ns(path))
            if seen in self._unfit:
                continue
            try:
                orphan = _adopt(path)
            except (BlockingIOError, FileNotFoundError):  # its owner lives, or it was delivered just now
                continue
            except OSError as error:
                if seen not in self._told:
                    self._told.add(seen)
                    log.warning("usage_spool_unreadable", path=str(path), reason=error.strerror or str(error))
                continue
            if orphan is not None:
                adopted.append(orphan)
            else:
                self._unfit.add(seen)
        return adopted


def _changed_ns(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return 0


def _adopt(path: Path) -> Orphan | None:
    """The spool if there is anything in it. Raises BlockingIOError if it is somebody's."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _lock_exclusively(descriptor)
        is_current = os.path.samestat(os.fstat(descriptor), path.stat())  # not replaced or delivered before we had it
        orphan = _read(path, descriptor) if is_current else None
    except BaseException:
        os.close(descriptor)
        raise
    if orphan is None:
        os.close(descriptor)
    return orphan


def _read(path: Path, descriptor: int) -> Orphan | None:
    size_bytes = os.fstat(descriptor).st_size
    with open(descriptor, "rb", closefd=False) as file:
        if file.read(len(MAGIC)) != MAGIC:
            log.warning("usage_spool_unreadable", path=str(path), reason="it is not a spool of this format")
            return None
        journal, spans, end = _spans(file.read)
    if end < size_bytes:
        log.warning("usage_spool_cut", path=str(path), sound_bytes=end, lost_bytes=size_bytes - end)
    if not spans:
        path.unlink(missing_ok=True)
        return None
    waiting: Waiting[Span] = Waiting(journal)
    for number, span in sorted(spans.items()):
        waiting.add(number, span)
    log.info("usage_spool_adopted", path=str(path), journal=journal, batches=len(waiting), size_bytes=size_bytes)
    return Orphan(path, descriptor, size_bytes, waiting)


def _spans(read: Callable[[int], bytes]) -> tuple[str, dict[int, Span], int]:
    """The journal, where its batches are (the last of each number), and where what is sound ends."""
    journal, spans, end = "", {}, len(MAGIC)
    for found in frames_in(read):
        named = journal_of(found.payload, found.number)
        if named is None or (journal and named != journal):
            break  # the checksum fits, and yet we did not write it
        journal, end = named, found.end
        spans[found.number] = Span(found.start, len(found.payload))
    return journal, spans, end


def _lock_exclusively(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
