"""Tables as values: cells with a tone, and which columns fit into how much room.

Pure. A listing makes its cells only when asked for a row: of a thousand rows a screen shows twenty.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal


class Stretch(str):
    """Text that is drawn for the width of its column."""

    __slots__ = ("draw",)
    draw: Callable[[int], str]

    @classmethod
    def made(cls, draw: Callable[[int], str]) -> Stretch:
        """`draw` gives it for a width; no more than that of it is kept."""
        found = cls("")
        found.draw = draw
        return found


Tone = Literal["plain", "good", "warn", "bad", "dim", "strong", "info"]
Cell = tuple[str, Tone]
Line = tuple[Cell, ...]

GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column: how wide it likes to be, how narrow it may get, and when it is left out."""

    title: str
    width: int
    rank: int = 1  # columns with the highest go first when there is no room; 0 stays
    is_number: bool = False
    grows: int = 0  # its part of the room that is left over


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows of a table. `keys` name them, so that the cursor stays where it is when others come and go."""

    columns: tuple[Column, ...]
    keys: Sequence[str]
    cells: Callable[[int], Sequence[Cell]]
    when_empty: str = "nothing yet"


def plain(text: str) -> Cell:
    """A cell of no importance."""
    return (text, "plain")


def dim(text: str) -> Cell:
    """A cell of little importance."""
    return (text, "dim")


def fit(columns: Sequence[Column], room: int) -> list[tuple[int, int]]:
    """Which columns are shown (by number) and how wide each is; with gaps between them they take at most `room`.

    The columns of the highest rank are left out first, the last of them before the others. What is left over goes to those
    that grow; if not even one fits, it is cut.
    """
    kept = list(range(len(columns)))
    while len(kept) > 1 and _needed(columns, kept) > room:
        least = max(kept, key=lambda number: (columns[number].rank, number))
        if columns[least].rank == 0:
            break
        kept.remove(least)
    widths = {number: columns[number].width for number in kept}
    while kept and _needed(columns, kept) > room:  # only what must stay is left: the rightmost gives way
        last = kept[-1]
        over = _needed(columns, kept) - room
        widths[last] = max(0, columns[last].width - over)
        if widths[last]:
            break
        kept.pop()
    left = room - sum(widths[number] for number in kept) - GAP * max(0, len(kept) - 1)
    shares = sum(columns[number].grows for number in kept)
    if left > 0 and shares:
        for number in kept:
            widths[number] += left * columns[number].grows // shares
    return [(number, widths[number]) for number in kept]


def _needed(columns: Sequence[Column], kept: Sequence[int]) -> int:
    return sum(columns[number].width for number in kept) + GAP * max(0, len(kept) - 1)


def cut(text: str, width: int, *, is_number: bool = False) -> str:
    """Exactly `width` columns of a terminal: padded, or cut with an ellipsis. Control characters are shown as `·`."""
    return text.draw(width) if isinstance(text, Stretch) else _cut(text, width, is_number)


@lru_cache(maxsize=16_384)  # most cells are the words that were there a quarter of a second ago
def _cut(text: str, width: int, is_number: bool) -> str:
    clean = text if text.isascii() and text.isprintable() else shown(text)
    length = cells(clean)
    if length > width:
        clean = _shortened(clean, width - 1) + "…" if width > 0 else ""
        length = cells(clean)
    pad = " " * (width - length)
    return pad + clean if is_number else clean + pad


def shown(text: str) -> str:
    """Text that cannot move the cursor: a name may come from anywhere."""
    return "".join("·" if unicodedata.category(one) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else one for one in text)


def cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def breaks(text: str, width: int) -> list[tuple[int, int]]:
    """Where lines of at most so many columns begin and end, in columns: at a blank in their second half, else anywhere."""
    places: list[int] = []  # of blanks, in columns
    at = 0
    for one in text:
        if one == " ":
            places.append(at)
        at += _cells_of(one)
    found, begin = [], 0
    while at - begin > max(1, width):
        end = begin + max(1, width)
        blank = max((place for place in places if begin + width // 2 < place <= end), default=None)
        if blank is None:
            found.append((begin, end))
            begin = end
        else:
            found.append((begin, blank))
            begin = blank + 1
    return [*found, (begin, at)]


def _cells_of(one: str) -> int:
    if unicodedata.combining(one):
        return 0
    return 2 if unicodedata.east_asian_width(one) in {"W", "F"} else 1


def _shortened(text: str, width: int) -> str:
    taken = 0
    for number, one in enumerate(text):
        taken += _cells_of(one)
        if taken > width:
            return text[:number]
    return text
