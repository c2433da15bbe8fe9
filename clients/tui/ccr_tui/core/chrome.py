"""What is around every view: the line at the top, the tabs, the keys at the bottom, the help.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ccr_tui.core import figures, linking, words
from ccr_tui.core.table import Cell, Line, cells, dim, plain
from ccr_tui.core.world import Link, World

Hint = tuple[str, str]
EVERYWHERE: tuple[Hint, ...] = (("?", "help"), ("q", "quit"))


def top(world: World, link: Link, door: str, now_s: float, width: int) -> Line:
    """Who is looked at, how the line is, and the rate; the least important goes first."""
    total = world.stats.total if world.stats else None
    parts: list[tuple[Cell, ...]] = [(("ccr ", "strong"), linking.light(link, now_s))]
    if total is not None:
        rate = f"{figures.rate(total.requests_per_s)} req/s, {figures.count(total.open_requests)} open"
        parts.append((plain(rate),))
    if world.newest_version:
        parts.append((dim("snapshot "), plain(str(world.newest_version))))
    if world.me is not None and world.me.role:
        parts.append((plain(words.ROLES.get(world.me.role, "?")),))
    parts.append((dim(door),))
    if world.me is not None and world.me.software_version:
        parts.append((dim(world.me.software_version),))
    said: list[Cell] = []
    room = width
    for part in parts:
        needed = sum(cells(text) for text, _ in part) + (3 if said else 0)
        if needed > room:
            continue
        said += [dim(" · "), *part] if said else part
        room -= needed
    return tuple(said)


def tabs(names: Sequence[str], width: int) -> list[str]:
    """Labels of the views, one blank between them; without room only the digits have names beside the first ones."""
    for style in ("{number} {name}", "{number}{name}", "{number}{short}"):
        labels = [style.format(number=number, name=name, short=name[:4]) for number, name in enumerate(names, 1)]
        if sum(map(len, labels)) + len(labels) - 1 <= width:
            return labels
    return [str(number) for number in range(1, len(names) + 1)]


def hints(own: Sequence[Hint], width: int) -> list[Hint]:
    """Keys for the bottom line: those of every view always, those of this one as far as there is room."""
    room = width - sum(len(key) + len(said) + 3 for key, said in EVERYWHERE)
    shown: list[Hint] = []
    for key, said in own:
        room -= len(key) + len(said) + 3
        if room < 0:
            break
        shown.append((key, said))
    return [*shown, *EVERYWHERE]


def help_lines(name: str, own: Sequence[Hint]) -> list[Line]:
    """All keys."""
    moving = (
        ("1-9", "bring a view to the front; so do [ and ] and a click on its name"),
        ("↑ ↓", "move the cursor; so do j and k, page up and down, home and end, and the mouse"),
        ("tab", "to the next list of a view"),
        ("enter", "more about what is under the cursor; so does a second click"),
        ("/", "show only some rows; in live requests the control plane filters"),
        ("escape", "back"),
        ("?", "this"),
        ("q", "quit"),
    )
    said: list[Line] = [
        ((f"In {name}", "strong"),),
        *map(_key, own),
        (),
        (("Everywhere", "strong"),),
        *map(_key, moving),
    ]
    said += [
        (),
        (
            plain(
                "What changes the relay asks once, and is in the events afterwards. A star means: changed at run time."
            ),
        ),
    ]
    return said


def _key(hint: Hint) -> Line:
    return ((hint[0].rjust(8), "info"), plain(f"  {hint[1]}"))
