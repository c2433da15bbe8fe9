"""Pins and hand-overs that the workers of a machine share, and that outlive them.

<state-dir>/pins/salt              names of sessions are hashed with it; made once for an installation
<state-dir>/pins/<node-name>.log   what one worker noted, a JSON line each; only that worker writes it

A worker reads all the files when it starts and looks for news several times a second, in a thread. There is no text of a
conversation in here, and no session id. A line that was cut off by a crash is passed over; the newest note of a session counts.
Nothing is synced: what the machine itself loses in a crash costs a cold prompt.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, time

import msgspec

from ccr_data.core.handover import Handovers, Homes
from ccr_data.core.pins import PIN_LIFETIME_S, Pin, Pins, SessionKey
from ccr_data.shell.logs import Log
from ccr_data.shell.node_dir import make_private, matching, replace_file, write_all

INTERVAL_S = 0.25
RETRY_S = 5.0  # when there was no room on the disk
MAX_LOG_BYTES = 8 << 20  # then it is written anew, with what is still true
MAX_READ_BYTES = 32 << 20
SALT_BYTES = 16
FORGOTTEN_AFTER_S = 24 * 3600.0  # logs of workers that are no more

log = Log("data")


class _Note(msgspec.Struct, omit_defaults=True):
    """One line. Times are Unix time; hashes are hexadecimal."""

    session: str
    at_s: float = 0.0
    provider: str = ""  # empty: not about a pin
    key: str = ""
    reader: str = ""
    until_s: float = 0.0
    lifetime_s: float = PIN_LIFETIME_S
    model: str = ""
    blocks: dict[str, str] = {}  # mark → the reader it was made for


_decode = msgspec.json.Decoder(_Note).decode
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Read:
    """How far another worker's log has been read."""

    inode: int = 0
    offset: int = 0


@dataclass(slots=True)
class _News:
    """What goes to the disk, and what came from there."""

    pins: dict[SessionKey, Pin] = field(default_factory=dict)
    blocks: dict[SessionKey, Homes] = field(default_factory=dict)
    is_everything: bool = False  # the log is to be written anew
    notes: list[_Note] = field(default_factory=list)


def salt(state_dir: Path) -> bytes:
    """The installation's salt; one for this process alone if it cannot be kept."""
    path = state_dir / "pins" / "salt"
    try:
        make_private(path.parent, state_dir)
        if not path.exists():
            new = path.with_name(f".salt.{os.getpid()}")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                write_all(descriptor, secrets.token_bytes(SALT_BYTES))
            finally:
                os.close(descriptor)
            with contextlib.suppress(FileExistsError):
                os.link(new, path)  # whole or not at all, and the first one counts
            new.unlink()
        found = path.read_bytes()
    except OSError:
        found = b""
    return found if len(found) == SALT_BYTES else secrets.token_bytes(SALT_BYTES)


class SharedPins:
    """Tells the other workers what this one noted, and learns what they did."""

    def __init__(self, state_dir: Path, node_name: str, pins: Pins, handovers: Handovers) -> None:
        self._directory = state_dir / "pins"
        self._own = self._directory / f"{node_name}.log"
        self._pins = pins
        self._handovers = handovers
        self._read: dict[str, _Read] = {}
        self._unreadable: set[str] = set()  # of which that was said
        self._size = 0
        self._limit = MAX_LOG_BYTES
        self._retry_s = 0.0  # not 0: what was noted is not on the disk, and this is when to try again

    async def load(self) -> None:
        """Learn what all workers, and the one before this, have noted."""
        news = _News()
        await asyncio.to_thread(self._exchange, news, with_own=True)
        self._learn(news.notes)

    async def run(self) -> None:
        """Keep in step until cancelled; then tell what is left."""
        try:
            while True:
                await asyncio.sleep(INTERVAL_S)
                news = self._news()
                await asyncio.to_thread(self._exchange, news)
                self._learn(news.notes)
        finally:
            self._retry_s = min(self._retry_s, perf_counter())  # there is no later time to try
            self._exchange(self._news())  # a few lines, at the very end

    def _news(self) -> _News:
        if 0 < perf_counter() < self._retry_s:
            return _News()
        pins, self._pins.changed = self._pins.changed, {}
        blocks, self._handovers.changed = self._handovers.changed, {}
        if self._size > self._limit or self._retry_s:
            return _News(self._pins.all(), self._handovers.all(), is_everything=True)
        return _News(pins, blocks)

    def _learn(self, notes: list[_Note]) -> None:
        since_s = time() - perf_counter()
        for note in notes:
            session = bytes.fromhex(note.session)
            if note.provider:
                now_s = perf_counter()  # where the wall clock was put back, notes seem to come from the future
                self._pins.learn(
                    session,
                    Pin(
                        note.provider,
                        note.key,
                        min(note.until_s - since_s, now_s + note.lifetime_s),
                        note.reader,
                        note.lifetime_s,
                        min(note.at_s - since_s, now_s),
                        note.model,
                    ),
                )
            if note.blocks:
                self._handovers.learn(session, {bytes.fromhex(mark): home for mark, home in note.blocks.items()})

    # --- in a thread: files only ------------------------------------------------------------------------------------

    def _exchange(self, news: _News, *, with_own: bool = False) -> None:
        try:
            self._write(news)
        except OSError as error:
            is_known, self._retry_s = self._retry_s > 0, perf_counter() + RETRY_S
            if not is_known:
                _warn(self._directory, error)
        for path in matching(self._directory, "*.log"):
            if path == self._own and not with_own:
                continue
            try:
                news.notes += self._new_notes(path, forgets=with_own)
            except OSError as error:  # no reason not to read the others, nor not to write
                if path.name not in self._unreadable:
                    self._unreadable.add(path.name)
                    _warn(path, error)

    def _write(self, news: _News) -> None:
        lines = _lines(news, time() - perf_counter())
        if news.is_everything:
            os.close(replace_file(self._own, lines))
            self._size = sum(map(len, lines))
            self._limit = max(MAX_LOG_BYTES, 2 * self._size)
            self._retry_s = 0.0
        elif lines:
            descriptor = os.open(self._own, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if not self._size:  # the worker before this may have been cut off in the middle of a line
                    write_all(descriptor, b"\n")
                write_all(descriptor, b"".join(lines))
                self._size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)

    def _new_notes(self, path: Path, *, forgets: bool) -> list[_Note]:
        read = self._read.setdefault(path.name, _Read())
        try:
            status = path.stat()
        except FileNotFoundError:
            return []
        if forgets and status.st_mtime < time() - FORGOTTEN_AFTER_S:
            path.unlink(missing_ok=True)
            return []
        if status.st_ino != read.inode or status.st_size < read.offset:
            read.inode, read.offset = status.st_ino, 0
        if status.st_size == read.offset:
            return []
        with path.open("rb") as file:
            file.seek(max(read.offset, status.st_size - MAX_READ_BYTES))
            data = file.read(MAX_READ_BYTES)
            whole = data.rfind(b"\n") + 1
            read.offset = file.tell() - len(data) + whole
        return [note for line in data[:whole].splitlines() if (note := _note(line)) is not None]


def _warn(path: Path, error: OSError) -> None:
    log.warning(
        "pins_not_kept",
        path=str(path),
        reason=error.strerror or str(error),
        consequence="sessions may lose their prompt cache when workers restart or take turns",
    )


def _note(line: bytes) -> _Note | None:
    """A line's note; None if it is damaged."""
    try:
        note = _decode(line)
        bytes.fromhex(note.session)
        for mark in note.blocks:
            bytes.fromhex(mark)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return None
    return note


def _lines(news: _News, since_s: float) -> list[bytes]:
    lines = [
        _Note(
            session.hex(),
            pin.noted_s + since_s,
            pin.provider,
            pin.key_label,
            pin.reader,
            pin.until_s + since_s,
            pin.lifetime_s,
            pin.model,
        )
        for session, pin in news.pins.items()
    ]
    lines += [
        _Note(session.hex(), blocks={mark.hex(): home for mark, home in homes.items()})
        for session, homes in news.blocks.items()
    ]
    return [_encode(line) + b"\n" for line in lines]
