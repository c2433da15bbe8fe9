"""The events of a JSON log that a process is writing: each line is parsed once, however often a test asks."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any


class LoggedEvents:
    """What has been logged to a file so far, from a position on; other lines are passed over.

    So is one that two processes share: where the disk was full, or one was killed while it wrote.
    """

    def __init__(self, path: Path, begins: int = 0) -> None:
        self._path = path
        self._read_to = begins
        self._seen: dict[str, list[dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def named(self, name: str) -> list[dict[str, Any]]:
        """The lines of one event, in order."""
        with self._lock:
            self._read_on()
            return list(self._seen.get(name, ()))

    def _read_on(self) -> None:
        try:
            with self._path.open("rb") as log:
                log.seek(self._read_to)
                lines, newline, _ = log.read().rpartition(b"\n")  # the last line may be half written
        except FileNotFoundError:
            return
        self._read_to += len(lines) + len(newline)
        for line in lines.split(b"\n"):
            if line.startswith(b"{") and line.endswith(b"}"):
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                self._seen.setdefault(str(event.get("event")), []).append(event)
