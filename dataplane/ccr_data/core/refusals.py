"""Requests that were refused before they were routed: a log line now and then, with their number. Pure.

Anybody can make the relay refuse; that must not fill a disk, and what they sent must not reach the log.
"""

from __future__ import annotations

SPACING_S = 10.0
"""At most one line of a kind within this."""


class Refusals:
    """What has not been told, by kind: the error's type."""

    __slots__ = ("_told_s", "_untold")

    def __init__(self) -> None:
        self._untold: dict[str, int] = {}
        self._told_s: dict[str, float] = {}

    def note(self, kind: str, now_s: float) -> int:
        """A request was refused. Returns how many of its kind to tell of now; 0: none yet."""
        count = self._untold.get(kind, 0) + 1
        told_s = self._told_s.get(kind)
        if told_s is not None and now_s - told_s < SPACING_S:
            self._untold[kind] = count
            return 0
        self._untold[kind] = 0
        self._told_s[kind] = now_s
        return count
