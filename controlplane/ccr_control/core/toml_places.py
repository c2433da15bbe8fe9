"""Where each value of a TOML text stands: tomllib does not say.

Pure. Reads only texts that tomllib has accepted, so it need not judge anything: it skips what it does not need.
Source of the grammar: toml.io/en/v1.0.0.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass, field

from ccr_control.core.document import Path, Place

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:[^"\\]|\\.)*"|' r"'[^']*'",
    re.DOTALL,
)
_OTHER = re.compile(r"[^,\]}\n#]*")  # a number, a bool or a date

Places = dict[Path, Place]


def toml_places(text: str) -> tuple[Places, Places]:
    """The places of all values and of all keys."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.places, scanner.key_places


@dataclass
class _Scanner:
    text: str
    at: int = 0
    places: Places = field(default_factory=dict)
    key_places: Places = field(default_factory=dict)
    array_lengths: dict[Path, int] = field(default_factory=dict)  # of arrays of tables
    line_starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.line_starts = [0, *(found.end() for found in re.finditer("\n", self.text))]

    def document(self) -> None:
        self.places[()] = Place(1, 1)
        table: Path = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self.text.startswith("[[", self.at):
                table = self._header("]]", is_array=True)
            elif self.text[self.at] == "[":
                table = self._header("]", is_array=False)
            else:
                self._pair(table)
            self._skip(_BLANK)

    def _header(self, closing: str, *, is_array: bool) -> Path:
        start = self.at
        self.at += len(closing)
        steps = self._key()
        self._skip(_SPACE)
        self.at += len(closing)
        path: Path = ()
        for step in steps[:-1]:
            path = self._newest((*path, step))
        path = (*path, steps[-1])
        self.key_places.setdefault(path, self._place(start))
        if not is_array:
            path = self._newest(path)
            self.places.setdefault(path, self._place(start))
            return path
        self.places.setdefault(path, self._place(start))
        self.array_lengths[path] = self.array_lengths.get(path, 0) + 1
        path = self._newest(path)
        self.places[path] = self._place(start)
        return path

    def _newest(self, path: Path) -> Path:
        """In an array of tables, a header speaks of its newest table."""
        length = self.array_lengths.get(path)
        return path if length is None else (*path, length - 1)

    def _pair(self, table: Path) -> None:
        start = self.at
        path = table
        for step in self._key():
            path = (*path, step)
            self.key_places.setdefault(path, self._place(start))
            self.places.setdefault(path, self._place(start))
        self._skip(_SPACE)
        self.at += 1  # =
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> list[str]:
        steps = []
        while True:
            self._skip(_SPACE)
            if self.text[self.at] in "\"'":
                steps.append(_unquoted(self._skip(_STRING)))
            else:
                steps.append(self._skip(_BARE_KEY))
            self._skip(_SPACE)
            if self.text[self.at] != ".":
                return steps
            self.at += 1

    def _value(self, path: Path) -> None:
        self.places[path] = self._place(self.at)
        match self.text[self.at]:
            case '"' | "'":
                self._skip(_STRING)
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case _:
                self._skip(_OTHER)

    def _array(self, path: Path) -> None:
        index = 0
        self.at += 1
        self._skip(_BLANK)
        while self.text[self.at] != "]":
            self._value((*path, index))
            index += 1
            self._skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1
                self._skip(_BLANK)
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        self._skip(_BLANK)
        while self.text[self.at] != "}":
            self._pair(path)
            self._skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1
                self._skip(_BLANK)
        self.at += 1

    def _skip(self, pattern: re.Pattern[str]) -> str:
        """Moves behind what the pattern fits, and gives it."""
        found = pattern.match(self.text, self.at)
        if found is None:
            raise AssertionError("tomllib accepted this text")
        self.at = found.end()
        return found.group()

    def _place(self, at: int) -> Place:
        line = bisect_right(self.line_starts, at)
        return Place(line, at - self.line_starts[line - 1] + 1)


def _unquoted(key: str) -> str:
    if key.startswith("'"):
        return key[1:-1]
    # TOML's \UXXXXXXXX is the one escape that JSON lacks
    plain = re.sub(r"\\U([0-9a-fA-F]{8})", lambda found: json.dumps(chr(int(found[1], 16)))[1:-1], key)
    return str(json.loads(plain, strict=False))
