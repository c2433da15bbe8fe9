"""Small screens in front of a view: yes or no, a line to type, one of several, something to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from ccr_tui.core.table import Column, Line, Listing, plain
from ccr_tui.shell.rows import Reading, RowList


class Ask(ModalScreen[bool]):
    """A yes or a no. Enter alone is a no: what changes traffic takes a letter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,enter,q", "answer(False)", "No"),
    ]

    def __init__(self, question: str, lines: Sequence[Line] = ()) -> None:
        super().__init__(classes="small" if not lines else "")
        self.question, self._lines = question, lines

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self.question, markup=False, classes="question")
            if self._lines:
                yield Reading(self._lines)
            yield Static("[@click=screen.answer(True)]y yes[/]    [@click=screen.answer(False)]n no[/]", classes="keys")

    def action_answer(self, said: bool) -> None:
        self.dismiss(said)


class Type(ModalScreen[str | None]):
    """A line to type. Escape: none."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "give_up", "Cancel")]

    def __init__(self, title: str, value: str = "", hint: str = "") -> None:
        super().__init__(classes="small")
        self.question, self._value, self._hint = title, value, hint

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self.question, markup=False, classes="question")
            yield Input(self._value, compact=True, select_on_focus=False)
            yield Static(self._hint or "enter takes it, escape does not", markup=False, classes="keys")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value)

    def action_give_up(self) -> None:
        self.dismiss(None)


class Pick(ModalScreen[str | None]):
    """One of several. Escape: none."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "give_up", "Cancel")]

    def __init__(self, title: str, options: Sequence[str], now: str = "") -> None:
        super().__init__()
        self.question, self._options, self._now = title, options, now

    def compose(self) -> ComposeResult:
        listing = Listing(
            (Column("", 20, 0, grows=1),),
            self._options,
            lambda row: ((self._options[row], "strong" if self._options[row] == self._now else "plain"),),
        )
        with Vertical(classes="box"):
            yield Static(self.question, markup=False, classes="question")
            yield RowList(listing)
            yield Static("enter takes one, escape none", classes="keys")

    def on_mount(self) -> None:
        rows = self.query_one(RowList)
        rows.focus()
        if self._now in self._options:
            rows.cursor = self._options.index(self._now)

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        event.stop()
        self.dismiss(event.key)

    def action_give_up(self) -> None:
        self.dismiss(None)


class Read(ModalScreen[None]):
    """Something to read, as large as the screen allows."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter,question_mark", "close", "Back")]

    def __init__(self, title: str, lines: Sequence[Line]) -> None:
        super().__init__()
        self.question, self._lines = title, list(lines) or [(plain("nothing"),)]

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self.question, markup=False, classes="question")
            yield Reading(self._lines)
            yield Static("[@click=screen.close]escape back[/]   ↑↓ scroll", classes="keys")

    def on_mount(self) -> None:
        self.query_one(Reading).focus()

    def action_close(self) -> None:
        self.dismiss(None)
