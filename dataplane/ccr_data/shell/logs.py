"""Logs of the process: one line for each event, JSON or text, secrets masked, written by a thread of its own.

An event is a fixed phrase; the rest are fields with units. A reader who stops reading must not stop the event loop:
lines that find no room are dropped and counted. Text that came from outside cannot steer a terminal or fake a line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["json", "text", "auto"]

MAX_QUEUED_BYTES = 8 << 20
CLOSE_PATIENCE_S = 1.0
PIPE_BUF_BYTES = 4096  # pipe(7): several processes share one; larger writes may be mixed with others'

_BEGIN = r"(?:\b|(?<=\\[bfnrt])|(?<=\\u[0-9a-f]{4})|(?<=\\x[0-9a-f]{2}))"  # of a word, also after an escape
_SECRET = re.compile(
    rf"{_BEGIN}(?i:(bearer\s+))[^\s\"',;]{{4,}}"  # in any header or message
    rf"|{_BEGIN}sk-[A-Za-z0-9_\-]{{6,}}"  # provider keys and claude.ai tokens (sk-ant-…)
    rf"|{_BEGIN}eyJ[A-Za-z0-9_\-]{{10,}}\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?"  # JSON web tokens
)
# What JSON leaves as it is although a terminal may obey it, or a reader take it for the end of a line.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]")


def masked(text: str) -> str:
    """The text with everything that looks like a credential replaced by ***."""
    return _SECRET.sub(lambda found: f"{found[1] or ''}***", text) if may_hold_secret(text) else text


def may_hold_secret(text: str) -> bool:
    """A quick look whether masking could change anything."""
    return "sk-" in text or "eyJ" in text or "earer" in text or "EARER" in text


def json_safe(line: str) -> str:
    """JSON with the characters escaped that it need not escape but a terminal may obey."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def word(value: object) -> str:
    """A value as one word of a text line: quoted if it has blanks, everything unprintable escaped."""
    text = str(value)
    if text.isprintable() and text and not re.search(r"[\s\"=]", text):
        return text
    return json_safe(json.dumps(text, ensure_ascii=not text.isprintable()))


class Log:
    """Logs events with fields under `ccr.data.<area>`."""

    def __init__(self, area: str) -> None:
        self._logger = logging.getLogger(f"ccr.data.{area}")

    def info(self, event: str, **fields: object) -> None:
        """A change of state."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: object) -> None:
        """Something an operator may want to change."""
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: object) -> None:
        """Something that does not work as it should."""
        self._logger.error(event, extra={"fields": fields})

    def exception(self, event: str, **fields: object) -> None:
        """A mistake of ours, with its traceback."""
        self._logger.exception(event, extra={"fields": fields})


class JsonLines(logging.Formatter):
    """One JSON object a line: ts (RFC 3339, milliseconds, UTC), level, logger, event, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "ts": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json_safe(masked(json.dumps(line, default=str, ensure_ascii=False, separators=(",", ":"))))


class TextLines(logging.Formatter):
    """For a terminal: local time, level, event, fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        event = record.getMessage()
        words = [
            clock_time(record.created),
            f"{record.levelname:7}",
            event if event.isprintable() else word(event),
            *(f"{name}={word(value)}" for name, value in _fields(record).items()),
        ]
        line = " ".join(words)
        if record.exc_info:
            line += "".join(f"\n{part}" for part in map(_printable, self.formatException(record.exc_info).split("\n")))
        return masked(line)


def clock_time(at_s: float) -> str:
    """Local time of day, with milliseconds."""
    at = datetime.fromtimestamp(at_s).astimezone()
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, "fields", {})
    return dict(fields) if isinstance(fields, dict) else {}


def _printable(text: str) -> str:
    return text if text.isprintable() else json_safe(text.encode("unicode_escape").decode("ascii"))


class LineWriter:
    """Hands lines to a thread that writes them. Never waits, neither for room nor, at the end, for a reader."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        notice: Callable[[int], bytes],
        max_queued_bytes: int = MAX_QUEUED_BYTES,
    ) -> None:
        self._write = write
        self._notice = notice  # the line that tells how many were dropped
        self._max_queued_bytes = max_queued_bytes
        self._queued: deque[bytes] = deque()
        self._queued_bytes = 0
        self._dropped_lines = 0
        self._lost_lines = 0  # that could not be written: no room on the disk
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, data: bytes, line_count: int = 1) -> None:
        """Queue whole lines, or count them as dropped."""
        with self._changed:
            if self._queued_bytes + len(data) > self._max_queued_bytes:
                self._dropped_lines += line_count
                return
            self._queued.append(data)
            self._queued_bytes += len(data)
            self._changed.notify()

    def close(self, patience_s: float = CLOSE_PATIENCE_S) -> None:
        """Write what is queued, for so long at most."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(patience_s)

    def _run(self) -> None:
        while (data := self._next()) is not None:
            try:
                if self._lost_lines:
                    self._write(self._notice(self._lost_lines))
                    self._lost_lines = 0
                self._write(data)
            except Exception:  # nowhere is left to complain to until something can be written again
                self._lost_lines += data.count(b"\n")

    def _next(self) -> bytes | None:
        with self._changed:
            while not self._queued and not self._dropped_lines:
                if self._is_closing:
                    return None
                self._changed.wait()
            if self._queued:
                data = self._queued.popleft()
                self._queued_bytes -= len(data)
                return data
            dropped, self._dropped_lines = self._dropped_lines, 0
        return self._notice(dropped)


@dataclass(frozen=True, slots=True)
class LogOutput:
    """Where the lines of this process go, and how they look."""

    writer: LineWriter
    is_text: bool
    has_colours: bool


class _Handler(logging.Handler):
    """Formats records at once, as what they refer to may change, and queues the lines."""

    def __init__(self, writer: LineWriter, formatter: logging.Formatter) -> None:
        super().__init__()
        self._writer = writer
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line."""
        try:
            self._writer.put(f"{self.format(record)}\n".encode(errors="replace"))
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """A record that cannot be formatted is told by its message's template only."""
        self._writer.put(f"{json.dumps({'event': 'log_line_failed', 'of': str(record.msg)})}\n".encode())


def _dropped(formatter: logging.Formatter) -> Callable[[int], bytes]:
    def line(count: int) -> bytes:
        record = logging.LogRecord("ccr.data.log", logging.WARNING, "", 0, "log_lines_dropped", None, None)
        record.fields = {"lines": count}
        return f"{formatter.format(record)}\n".encode()

    return line


@contextlib.contextmanager
def logging_to(
    write: Callable[[bytes], object] | None = None,
    log_format: LogFormat = "auto",
    *,
    is_terminal: bool | None = None,
) -> Iterator[LogOutput]:
    """Send all logs of the process to `write` (stderr) while the block runs; what is queued is written at its end."""
    if is_terminal is None:
        is_terminal = os.isatty(2)
    is_text = log_format == "text" or (log_format == "auto" and is_terminal)
    formatter = TextLines() if is_text else JsonLines()
    writer = LineWriter(write or stderr_write(), _dropped(formatter))
    handler = _Handler(writer, formatter)
    root = logging.getLogger()
    level_before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield LogOutput(writer, is_text, is_text and is_terminal and not os.environ.get("NO_COLOR"))
    finally:
        root.removeHandler(handler)
        root.setLevel(level_before)
        writer.close()


def stderr_write(descriptor: int = 2) -> Callable[[bytes], None]:
    """Writes to stderr so that lines of several processes stay whole, without Python's buffer: its lock would keep the
    process from ending while a reader has stopped reading.
    """
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:  # closed
        return lambda _: None
    limit = 1 << 20 if is_file else PIPE_BUF_BYTES
    is_torn = False  # half a line may be there, of this process or of another one that found no room either

    def write(data: bytes) -> None:
        nonlocal is_torn
        for piece in whole_lines(b"\n" + data if is_torn else data, limit):
            rest, is_torn = piece, True
            while rest:
                written = os.write(descriptor, rest)
                is_torn = rest[written - 1 : written] != b"\n"
                rest = rest[written:]

    return write


def whole_lines(data: bytes, limit: int) -> Iterator[bytes]:
    """The data in pieces of whole lines, each as long as `limit` allows; a longer line is a piece of its own."""
    start = 0
    while len(data) - start > limit:
        end = data.rfind(b"\n", start, start + limit) + 1 or data.find(b"\n", start + limit) + 1 or len(data)
        yield data[start:end]
        start = end
    if start < len(data):
        yield data[start:]
