"""Logs: one line for each event, JSON or text, secrets masked, written by a thread of its own.

An event is a fixed phrase; the rest are fields with units. A reader who stops reading must not stop the event loop:
lines that find the queue full are dropped and counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["json", "text", "auto"]

MAX_QUEUED_LINES = 10_000
# Libraries of clouds: what matters of theirs comes as an error, and is told then.
_QUIET = ("azure", "botocore", "google", "msal", "urllib3")

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
    return _SECRET.sub(lambda found: f"{found[1] or ''}***", text)


class Log:
    """Logs events with fields under `ccr.control.<area>`."""

    def __init__(self, area: str) -> None:
        self._logger = logging.getLogger(f"ccr.control.{area}")

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


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, "fields", {})
    return dict(fields) if isinstance(fields, dict) else {}


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
        return _json_safe(masked(json.dumps(line, default=str, ensure_ascii=False)))


class TextLines(logging.Formatter):
    """For a terminal: local time, level, event, fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone()
        words = [f"{name}={_word(value)}" for name, value in _fields(record).items()]
        event = record.getMessage()  # a library's may be anything
        begin = [f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}", f"{record.levelname:7}"]
        line = " ".join([*begin, event if event.isprintable() else _word(event), *words])
        if record.exc_info:
            line += "".join(f"\n{part}" for part in map(_printable, self.formatException(record.exc_info).split("\n")))
        return masked(line)


def _word(value: object) -> str:
    """A value as one word: quoted if it has blanks, everything unprintable escaped."""
    text = str(value)
    if text.isprintable() and text and not re.search(r"[\s\"=]", text):
        return text
    return _json_safe(json.dumps(text, ensure_ascii=not text.isprintable()))


def _json_safe(line: str) -> str:
    """JSON with the characters escaped that it need not escape but a terminal may obey."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def _printable(text: str) -> str:
    return text if text.isprintable() else _json_safe(text.encode("unicode_escape").decode("ascii"))


class _Writer(logging.Handler):
    """Hands records to a thread that formats and writes them.

    Never waits: neither for room in the queue nor, at the end, for a reader who has stopped reading.
    """

    def __init__(self, write: Callable[[bytes], object], formatter: logging.Formatter) -> None:
        super().__init__()
        self._write = write
        self.setFormatter(formatter)
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(MAX_QUEUED_LINES)
        self._dropped = 0
        self._lost = 0  # lines that could not be written: no room on the disk
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, or count it as dropped."""
        try:
            if self._dropped:
                self._records.put_nowait(_notice_of(self._dropped))
                self._dropped = 0
            self._records.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what is queued, for two seconds at most."""
        with contextlib.suppress(queue.Full):
            self._records.put(None, timeout=1.0)
            self._thread.join(timeout=1.0)
        super().close()

    def _run(self) -> None:
        while record := self._records.get():
            try:
                if self._lost:
                    self._write(self._line(_notice_of(self._lost)))
                    self._lost = 0
                self._write(self._line(record))
            except Exception:  # nowhere is left to complain to until something can be written again
                self._lost += 1

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode(errors="replace")


def _notice_of(dropped: int) -> logging.LogRecord:
    notice = logging.LogRecord("ccr.control.log", logging.WARNING, "", 0, "log_lines_dropped", None, None)
    notice.fields = {"lines": dropped}
    return notice


class _Stderr:
    """Without Python's buffer: its lock would keep the process from ending while a reader has stopped reading."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._is_torn = False  # half a line may be there, of this process or of another one that found no room either

    def write(self, line: bytes) -> None:
        """Raises OSError."""
        rest = b"\n" + line if self._is_torn else line
        self._is_torn = True
        while rest:
            written = os.write(self._descriptor, rest)
            self._is_torn = rest[written - 1 : written] != b"\n"
            rest = rest[written:]


@contextlib.contextmanager
def logging_to(write: Callable[[bytes], object] | None = None, log_format: LogFormat = "auto") -> Iterator[None]:
    """Send all logs of the process to `write` (stderr) while the block runs; what is queued is written before it ends."""
    as_text = log_format == "text" or (log_format == "auto" and os.isatty(2))
    writer = _Writer(write or _Stderr().write, TextLines() if as_text else JsonLines())
    root = logging.getLogger()
    level_before = root.level
    root.addHandler(writer)
    root.setLevel(logging.INFO)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of every change
    for library in _QUIET:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.removeHandler(writer)
        root.setLevel(level_before)
        writer.close()
