"""Prints tables and JSON: with rich on a terminal, plain and aligned elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

Row = Sequence[str]


def print_table(title: str, columns: Row, rows: Sequence[Row], numeric: frozenset[int] = frozenset()) -> None:
    """A table under its title; `numeric` columns are aligned to the right. NO_COLOR is rich's own business."""
    if not rows:
        print(f"{title}: none")
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number in numeric else "left", no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row))  # Text: names are not markup
        console = Console()
        needed = max(map(len, plain_table(columns, rows, numeric)))
        console.width = max(console.width, needed)  # a narrow terminal breaks lines, words stay whole
        console.print(table)
    else:
        print("\n".join([title, *plain_table(columns, rows, numeric)]))


def plain_table(columns: Row, rows: Sequence[Row], numeric: frozenset[int]) -> list[str]:
    """Lines of aligned words, two blanks between columns."""
    widths = [max(len(row[number]) for row in [columns, *rows]) for number in range(len(columns))]
    return [
        "  ".join(
            word.rjust(width) if number in numeric else word.ljust(width)
            for number, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [columns, *rows]
    ]


def print_json(value: object) -> None:
    """One JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_line(text: str) -> None:
    """A line of something that goes on: seen at once, also through a pipe."""
    print(text, flush=True)


def print_diff(text: str) -> None:
    """A unified diff, coloured on a terminal."""
    from rich.console import Console
    from rich.text import Text

    colours = {"+": "green", "-": "red", "@": "cyan"}
    if not sys.stdout.isatty():
        print(text, end="" if text.endswith("\n") else "\n")
        return
    console = Console()
    for line in text.splitlines():
        console.print(Text(line, style=colours.get(line[:1], "")), soft_wrap=True)
