"""Pieces of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def made_from(source: str) -> str:
    """The line that keeps people from editing a page by hand."""
    return f"<!-- Made by tools/docs.py from {source}. Do not edit; run `make docs`. -->"


def cell(text: str) -> str:
    """Text that cannot end a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell(text) for text in line)} |" for line in lines)


def page(*blocks: str) -> str:
    """Blocks with an empty line between them, and one line end at the end."""
    return "\n\n".join(block.strip("\n") for block in blocks if block) + "\n"
