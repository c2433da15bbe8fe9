"""A decoded configuration text: plain values, and the place of each in the text.

Pure. `decode` makes one from YAML or TOML, `expand` fills in its variables, `config` turns it into a `Config`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ccr_control.core.errors import Problem

Path = tuple[str | int, ...]
Tree = Any  # None, bool, int, float, str, TOML's dates, lists and string-keyed dicts of these

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LOOKS_SECRET = re.compile(
    r"(?i)\b(sk|pk|ghp|xox[a-z]|akia|eyj|bearer)[-_ A-Z0-9]|(?=\S*\d)(?=\S*[A-Z])[A-Z0-9_+/=-]{24,}"
)
MAX_QUOTED = 60


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a text, both numbers from 1; (0, 0) is unknown."""

    line: int
    column: int


UNKNOWN = Place(0, 0)


@dataclass(frozen=True, slots=True)
class Document:
    """What a text says, before any variable is filled in."""

    file: str
    data: dict[str, Tree]
    places: Mapping[Path, Place] = field(default_factory=dict)  # of values
    key_places: Mapping[Path, Place] = field(default_factory=dict)  # of the keys that lead to them

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> Problem:
        """A problem at the value (or its key) that `path` leads to, or at the nearest thing around it."""
        place = self.key_places.get(path) if at_key else None
        for known in ancestry(path):
            place = place or self.places.get(known)
        found = place or UNKNOWN
        return Problem(self.file, found.line, found.column, path_text(path), message)

    def written(self, path: Path) -> Tree:
        """The value as it stands in the text, variables unexpanded; None if there is none."""
        return at(self.data, path)

    def quoted(self, path: Path) -> str:
        """The written value for a message: shortened, never expanded, never what looks like a credential."""
        return quote(self.written(path))


def quote(value: Tree) -> str:
    """A value for a message; "***" instead of what looks like a credential."""
    text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    if looks_secret(text):
        return "'***'"
    short = text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 1] + "…"
    return repr(short) if isinstance(value, str) else short


def looks_secret(text: str) -> bool:
    """Whether a text could be a credential that ended up in the wrong place. Errs towards yes."""
    return "${" not in text and _LOOKS_SECRET.search(text) is not None


def ancestry(path: Path) -> Iterator[Path]:
    """The path, then the paths around it, outwards."""
    for length in range(len(path), -1, -1):
        yield path[:length]


def at(data: Tree, path: Path) -> Tree:
    """The value that `path` leads to, or None."""
    for step in path:
        if isinstance(step, str):
            data = data.get(step) if isinstance(data, dict) else None
        else:
            data = data[step] if isinstance(data, list) and step < len(data) else None
    return data


def path_text(path: Iterable[str | int]) -> str:
    """A path for people: `providers[0].model_mapping["claude-*"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step) and not looks_secret(step):
            text += f".{step}" if text else step
        else:
            text += f"[{quote(step)}]"
    return text
