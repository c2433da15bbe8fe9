"""Draws lines of words: tones become attributes of the terminal's own 16 colours, so that its theme decides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from ccr_tui.core import table
from ccr_tui.core.table import Cell, Column, Line, Tone

STYLES: dict[Tone, Style] = {
    "plain": Style(),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "dim": Style(dim=True),
    "strong": Style(bold=True),
    "info": Style(color="cyan"),
}
CURSOR = Style(reverse=True)
HEADER = Style(bold=True, underline=True)
_GAP = " " * table.GAP
_PLAIN = Style()


def row(
    cells: Sequence[Cell],
    columns: Sequence[Column],
    widths: Iterable[tuple[int, int]],
    width: int,
    over: Style | None = None,
) -> Strip:
    """One row of a table, as wide as the screen. `over` takes the place of every tone: under the cursor colours are hard to read."""
    drawn: list[Segment] = []
    length = 0
    for number, cell_width in widths:
        text, tone = cells[number]
        gap = _GAP if drawn else ""
        said = gap + table.cut(text, cell_width, is_number=columns[number].is_number)
        drawn.append(Segment(said, STYLES[tone] if over is None else over))
        length += len(gap) + cell_width
    if length < width:
        drawn.append(Segment(" " * (width - length), over or _PLAIN))
    strip = Strip(drawn, max(length, width))  # its length is known: a strip is dear to make, and to measure
    return strip if length <= width else strip.crop(0, width)


def header(columns: Sequence[Column], widths: Iterable[tuple[int, int]], width: int) -> Strip:
    """The titles of a table."""
    titles: list[Cell] = [(column.title, "plain") for column in columns]
    return row(titles, columns, widths, width, HEADER)


def line(said: Line, width: int) -> Strip:
    """One line of words; cut where the screen ends."""
    strip = Strip([Segment(table.shown(text), STYLES[tone]) for text, tone in said if text])
    return strip.extend_cell_length(width).crop(0, width)


def wrapped(lines: Iterable[Line], width: int) -> list[Strip]:
    """Lines, with what does not fit on lines of its own (see table.breaks)."""
    drawn: list[Strip] = []
    for said in lines:
        strip = Strip([Segment(table.shown(text), STYLES[tone]) for text, tone in said if text])
        if strip.cell_length <= width:
            drawn.append(strip.extend_cell_length(width))
            continue
        drawn += [strip.crop(begin, end).extend_cell_length(width) for begin, end in table.breaks(strip.text, width)]
    return drawn
