"""What clients and providers say that this version does not know: names and who says them, never values.

Pure and bounded. Times are seconds since 1970.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

MAX_UNKNOWNS = 1000
MAX_NAME_CHARS = 100
KINDS = ("beta", "body_key", "header", "event_type")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]*\Z", re.ASCII)
"""What names look like. Whatever does not may be a value that somebody put there, and is not kept."""


class UnknownName(NamedTuple):
    """A name, where it was found, and who said it."""

    kind: str
    name: str
    said_by: str


@dataclass(frozen=True, slots=True)
class Seen:
    """How often, and since when."""

    count: int
    first_s: float


class Unknowns:
    """All there were since the start."""

    def __init__(self, limit: int = MAX_UNKNOWNS) -> None:
        self._seen: dict[UnknownName, Seen] = {}
        self._limit = limit

    def __len__(self) -> int:
        return len(self._seen)

    def note(self, name: UnknownName, count: int, at_s: float) -> bool:
        """It was said so often. Returns whether the name was new, whoever said it; beyond the limit no new one is kept."""
        if not is_plain(name) or count < 1:
            return False
        known = self._seen.get(name)
        if known is not None:
            self._seen[name] = Seen(known.count + count, min(known.first_s, at_s))
            return False
        if len(self._seen) >= self._limit:
            return False
        is_new = not any(one.kind == name.kind and one.name == name.name for one in self._seen)
        self._seen[name] = Seen(count, at_s)
        return is_new

    def all(self) -> Iterable[tuple[UnknownName, Seen]]:
        """The most frequent first."""
        return sorted(self._seen.items(), key=lambda one: (-one[1].count, one[0]))


def is_plain(name: UnknownName) -> bool:
    """Whether it is of a known kind and looks like a name."""
    return (
        name.kind in KINDS
        and len(name.name) <= MAX_NAME_CHARS
        and _NAME.match(name.name) is not None
        and (not name.said_by or (len(name.said_by) <= MAX_NAME_CHARS and _NAME.match(name.said_by) is not None))
    )
