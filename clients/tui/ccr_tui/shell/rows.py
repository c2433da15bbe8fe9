"""A list of rows with a cursor, and lines to read: both draw only what is seen, and send only lines that changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from ccr_tui.core.table import Line, Listing, dim, fit
from ccr_tui.shell import paint


class _Drawn(ScrollView):
    """What was drawn last, by line of the screen: an update refreshes the lines that differ."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self._last: dict[int, Strip] = {}

    @property
    def room(self) -> int:
        """How wide a line is: beside the scrollbar, if there is one."""
        return self.scrollable_content_region.width

    def make_line(self, y: int, width: int) -> Strip:
        """The line `y` of the visible part."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        strip = self.make_line(y, self.room)
        self._last[y] = strip
        return strip

    def redraw(self) -> None:
        """Refresh the lines that are not as they were drawn."""
        width = self.room
        changed = [
            Region(0, y, width, 1) for y in range(self.size.height) if self._last.get(y) != self.make_line(y, width)
        ]
        if changed:
            self.refresh(*changed)


class RowList(_Drawn, can_focus=True):
    """A table. The cursor stays on its row while others come and go; on the first row it stays on the first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "jump(0)", "First", show=False),
        Binding("end,G", "jump(-1)", "Last", show=False),
        Binding("enter", "choose", "Details", show=False),
    ]

    class Chosen(Message):
        """Enter, or a click on the row with the cursor."""

        def __init__(self, rows: RowList, key: str) -> None:
            super().__init__()
            self.rows, self.key = rows, key

        @property
        def control(self) -> RowList:
            return self.rows

    class AtEnd(Message):
        """Somebody went on at the last row."""

    def __init__(self, listing: Listing, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.listing = listing
        self.cursor = 0
        self._widths: list[tuple[int, int]] = []
        self._rows: dict[int, Strip] = {}  # of this listing, without the cursor: a key changes two of them

    @property
    def key(self) -> str | None:
        """The key of the row with the cursor; None if there is no row."""
        return self.listing.keys[self.cursor] if self.listing.keys else None

    def show(self, listing: Listing) -> None:
        """Other rows, or the same with other words."""
        keys, top, was = self.listing.keys, self.scroll_offset.y, self.cursor
        held = was or top  # who only scrolls with the wheel keeps the row at the top
        known = keys[held] if held < len(keys) else None
        self.listing = listing
        moved = self._found(known, held) - held if held and known is not None else 0
        if was:
            self.cursor = max(0, was + moved)
        self._lay_out()
        if moved:
            self.scroll_to(y=max(0, top + moved), animate=False, force=True)
        self.redraw()

    def _found(self, key: str, was: int) -> int:
        keys = self.listing.keys
        if was < len(keys) and keys[was] == key:
            return was
        try:
            return list(keys).index(key)
        except ValueError:
            return max(0, min(was, len(keys) - 1))

    def _lay_out(self) -> None:
        width = self.room
        self._widths = fit(self.listing.columns, width)
        self._rows = {}
        self.virtual_size = Size(width, len(self.listing.keys) + 1)

    def on_resize(self) -> None:
        self._lay_out()
        self.refresh()

    def make_line(self, y: int, width: int) -> Strip:
        if y == 0:
            return paint.header(self.listing.columns, self._widths, width)
        number = self.scroll_offset.y + y - 1
        if not self.listing.keys and number == 0:
            return paint.line((dim(self.listing.when_empty),), width)
        if number >= len(self.listing.keys):
            return Strip.blank(width)
        if number == self.cursor and self.has_focus:
            return self._row(number, width, paint.CURSOR)
        found = self._rows.get(number)
        if found is None or found.cell_length != width:
            found = self._rows[number] = self._row(number, width)
        return found

    def _row(self, number: int, width: int, over: Style | None = None) -> Strip:
        return paint.row(self.listing.cells(number), self.listing.columns, self._widths, width, over)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def action_move(self, by: int) -> None:
        self.move_to(self.cursor + by)

    def action_page(self, by: int) -> None:
        self.move_to(self.cursor + by * max(1, self.size.height - 2))

    def action_jump(self, to: int) -> None:
        self.move_to(to if to >= 0 else len(self.listing.keys) - 1)

    def action_choose(self) -> None:
        if (key := self.key) is not None:
            self.post_message(self.Chosen(self, key))

    def move_to(self, number: int) -> None:
        """Put the cursor on a row, and the row on the screen."""
        if number >= len(self.listing.keys):
            self.post_message(self.AtEnd())
        self.cursor = max(0, min(number, len(self.listing.keys) - 1))
        top, room = self.scroll_offset.y, max(1, self.size.height - 1)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= top + room:
            self.scroll_to(y=self.cursor - room + 1, animate=False, force=True)
        self.redraw()

    def on_mouse_scroll_down(self) -> None:
        """Textual's own handler scrolls."""
        if self.scroll_offset.y >= self.max_scroll_y:
            self.post_message(self.AtEnd())

    def on_click(self, event: events.Click) -> None:
        number = self.scroll_offset.y + event.y - 1
        if event.y == 0 or number >= len(self.listing.keys):
            return
        if number == self.cursor:
            self.action_choose()
        else:
            self.move_to(number)


class Reading(_Drawn, can_focus=True):
    """Lines to read; long ones are wrapped."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "scroll_up", show=False),
        Binding("j", "scroll_down", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
    ]

    def __init__(
        self,
        lines: Sequence[Line] = (),
        *,
        id: str | None = None,  # noqa: A002 - Textual's name
        takes_keys: bool = True,
    ) -> None:
        """`takes_keys`: whether it can be scrolled, and so takes part in going round with tab."""
        super().__init__(id=id)
        self.can_focus = takes_keys
        self.lines = list(lines)
        self._strips: list[Strip] = []

    def show(self, lines: Sequence[Line]) -> None:
        """Other lines."""
        self.lines = list(lines)
        self._lay_out()
        self.redraw()

    def _lay_out(self) -> None:
        width = self.room
        self._strips = paint.wrapped(self.lines, width) if width else []
        self.virtual_size = Size(width, len(self._strips))

    def on_resize(self) -> None:
        self._lay_out()
        self.refresh()

    def make_line(self, y: int, width: int) -> Strip:
        number = self.scroll_offset.y + y
        return self._strips[number] if number < len(self._strips) else Strip.blank(width)

    @property
    def text(self) -> str:
        """What there is to read, for tests and scripts."""
        return "\n".join("".join(text for text, _ in said) for said in self.lines)
