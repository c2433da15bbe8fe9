"""The dashboard: holds what is known, paints it four times a second, and alone talks to the control plane."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from typing import Any, ClassVar

from ccr_client import AsyncControlPlane, ControlError
from ccr_rpc.v1 import access_pb2, dashboard_pb2
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.css.query import NoMatches
from textual.widgets import ContentSwitcher, Static

from ccr_tui.core import acts, chrome, linking
from ccr_tui.core.acts import Act
from ccr_tui.core.world import Away, Link, World, after, without_records
from ccr_tui.shell.feed import follow
from ccr_tui.shell.questions import Ask, Read, Type
from ccr_tui.shell.rows import Reading, RowList
from ccr_tui.shell.views import VIEWS, Live, View

PAINT_EVERY_S = 0.25
PULSE_EVERY_S = 5.0
PULSE_WITHIN_S = 3.0
ACT_WITHIN_S = 60.0  # a probe takes as long as the configuration lets it

Connect = Callable[[], AsyncControlPlane]


class Dashboard(App[int]):
    """`ccr tui`."""

    TITLE = "ccr"
    ENABLE_COMMAND_PALETTE = False
    CSS_PATH = "dashboard.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"go('{view.name_shown}')", view.name_shown) for number, view in enumerate(VIEWS, 1)),
        Binding("right_square_bracket", "next(1)", "Next view", show=False),
        Binding("left_square_bracket", "next(-1)", "View before", show=False),
        Binding("question_mark", "help", "Help"),
        Binding("q", "leave", "Quit"),
        Binding("ctrl+c", "leave", "Quit", show=False, priority=True),
    ]

    def __init__(self, connect: Connect, door: str, *, ends_relay: bool = False) -> None:
        """`door` is the control plane's name on the screen; `ends_relay`: who quits is asked about the relay."""
        super().__init__(ansi_color=True)  # the terminal's own colours
        self.theme = "ansi-dark"
        self._connect, self._door, self._ends_relay = connect, door, ends_relay
        self.world = World()
        self.plane: AsyncControlPlane
        self._is_dirty = True
        self._painted_s = 0.0
        self._is_deaf = False  # the last pulse was not answered

    @property
    def now_s(self) -> float:
        """The control plane's time."""
        return time.time() + self.world.clock_offset_s

    @property
    def view(self) -> View:
        """The view in front."""
        switcher = self.screen_stack[0].query_one(ContentSwitcher)
        return switcher.query_one(f"#{switcher.current}", View)

    def compose(self) -> ComposeResult:
        yield Reading(id="top", takes_keys=False)
        yield Static(id="tabs")
        yield Static(id="banner", markup=False)
        with ContentSwitcher(initial=VIEWS[0].name_shown, id="views"):
            for view in VIEWS:
                yield view(id=view.name_shown)
        yield Static(id="hints")

    def on_mount(self) -> None:
        self.plane = self._connect()
        self.set_interval(PAINT_EVERY_S, self.paint)
        self._follow_base()
        self._pulse()
        self.action_go(VIEWS[0].name_shown)

    async def on_unmount(self) -> None:
        await self.plane.close()

    @work(exclusive=True, group="base")
    async def _follow_base(self) -> None:
        request = dashboard_pb2.WatchRequest(
            stats=True, providers=True, nodes=True, config=True, events=True, series=True
        )
        await follow(self.plane, request, self._take, lambda link: self._note(base=link))

    @work(exclusive=True, group="focus")
    async def _follow_focus(self, request: dashboard_pb2.WatchRequest) -> None:
        await follow(self.plane, request, self._take, lambda link: self._note(focus=link))

    @work(exclusive=True, group="pulse")
    async def _pulse(self) -> None:
        """Ask who we are, again and again: a stream that says nothing may be one that is dead."""
        while True:
            try:
                me = await self.plane.access.WhoAmI(access_pb2.WhoAmIRequest(), timeout=PULSE_WITHIN_S)
                self._change(me=me)
                self._is_deaf = False
            except ControlError as error:
                self._is_deaf = error.status in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
            self._is_dirty = True
            await asyncio.sleep(PULSE_EVERY_S)

    def _take(self, said: dashboard_pb2.WatchResponse) -> None:
        self.world = after(self.world, said, time.time())
        self._is_dirty = True

    def _note(self, **links: Link) -> None:
        if any(getattr(self.world, name) != link for name, link in links.items()):
            self._change(**links)

    def _change(self, **fields: Any) -> None:
        self.world = dataclasses.replace(self.world, **fields)
        self._is_dirty = True

    def paint(self) -> None:
        """What changed since the last time; ages grow by the second."""
        # The timer may fire once more while all is taken down.
        if not self.screen_stack or not self.screen_stack[0].query("#top"):
            return
        now_s = time.monotonic()
        if not self._is_dirty and now_s - self._painted_s < 1.0:
            return
        self._is_dirty, self._painted_s = False, now_s
        self._paint_frame()
        self.view.repaint()

    def _paint_frame(self) -> None:
        screen = self.screen_stack[0]
        width = self.size.width
        link = self.link
        screen.query_one("#top", Reading).show([chrome.top(self.world, link, self._door, time.time(), width)])
        wants = self.view.wants() is not None
        said = linking.banner(link, self.world.focus if wants else None)
        banner = screen.query_one("#banner", Static)
        banner.display = bool(said)
        if said:
            banner.update(said)

    @property
    def link(self) -> Link:
        """How the line is: streams may not notice that nobody is there any more."""
        if self._is_deaf and not isinstance(self.world.base, Away):
            return Away("no control plane answers", time.time())
        return self.world.base

    def _paint_tabs(self) -> None:
        front = self.view.name_shown
        names = [view.name_shown for view in VIEWS]
        parts: list[Content] = []
        for number, label in enumerate(chrome.tabs(names, self.size.width), 1):
            name = names[number - 1]
            style = "reverse" if name == front else ""
            parts.append(Content.from_markup(f"[{style} @click=app.go('{name}')]$label[/]", label=label))
        self.screen_stack[0].query_one("#tabs", Static).update(Content(" ").join(parts))
        hints = chrome.hints(self.view.hints, self.size.width)
        said = [Content.assemble((key, "bold"), " ", (words, "dim")) for key, words in hints]
        self.screen_stack[0].query_one("#hints", Static).update(Content("  ").join(said))

    def on_resize(self) -> None:
        self.call_after_refresh(self._resized)

    def _resized(self) -> None:
        try:
            self._paint_tabs()
            self._is_dirty = True
            self.paint()
        except NoMatches:  # before everything is there
            return

    def action_go(self, name: str, about: str = "") -> None:
        """Bring a view to the front; `about` puts its cursor on a row, or is its filter."""
        if len(self.screen_stack) > 1:
            return
        switcher = self.screen_stack[0].query_one(ContentSwitcher)
        switcher.current = name
        view = self.view
        if isinstance(view, Live) and about:
            view.action_filter_by(about)
        else:
            self._refocus()
        self._paint_tabs()
        view.repaint()
        self.screen.set_focus(view.focus_widget())  # at once: the next key may be here already
        if about and not isinstance(view, Live):
            self._put_cursor(view, about)
        view.opened()
        self._is_dirty = True
        self.call_after_refresh(self.paint)

    def _put_cursor(self, view: View, key: str) -> None:
        rows = view.query_one(RowList)
        if key in rows.listing.keys:
            rows.move_to(list(rows.listing.keys).index(key))

    def action_next(self, by: int) -> None:
        names = [view.name_shown for view in VIEWS]
        self.action_go(names[(names.index(self.view.name_shown) + by) % len(names)])

    def forget_records(self) -> None:
        """The filter is another one."""
        self.world = without_records(self.world)
        self._refocus()

    def _refocus(self) -> None:
        """The second stream brings what the view in front wants."""
        wanted = self.view.wants()
        if wanted is None:
            self.workers.cancel_group(self, "focus")
        else:
            if wanted.HasField("records"):
                self.world = without_records(self.world)
            self._follow_focus(wanted)

    def perform(self, act: Act) -> None:
        """Ask, do, say what came of it."""
        self._perform(act)

    @work(exclusive=True, group="question")
    async def _perform(self, act: Act) -> None:
        await self.carry_out(act)

    @work(exclusive=True, group="question")
    async def _perform_number(self, whose: str, field: str, now: str, make: Callable[[str], Act]) -> None:
        if why := acts.why_not(acts.OPERATOR, self.world.me):
            self.notify(why, severity="warning")
            return
        title, shown, hint = f"{field.capitalize()} of {whose}", now, ""
        while (typed := await self.push_screen_wait(Type(title, shown, hint))) is not None:
            try:
                act = make(typed)
            except acts.BadNumber as bad:
                shown, hint = typed, str(bad)
                continue
            await self.call(act)  # typing it was the question
            return

    def perform_number(self, whose: str, field: str, now: str, make: Callable[[str], Act]) -> None:
        """Have a number typed, then do it."""
        self._perform_number(whose, field, now, make)

    async def carry_out(self, act: Act) -> None:
        """Ask, do, say what came of it."""
        if why := acts.why_not(act.role, self.world.me):
            self.notify(why, severity="warning")
        elif await self.push_screen_wait(Ask(act.question)):
            await self.call(act)

    async def call(self, act: Act) -> None:
        """Do it and say what came of it."""
        method = getattr(getattr(self.plane, act.service), act.method)
        try:
            answer = await method(act.request, timeout=ACT_WITHIN_S)
        except ControlError as error:
            self.say_fault(error)
            return
        self.notify(act.done(answer), timeout=8)

    def say_fault(self, error: ControlError) -> None:
        """A call went wrong."""
        self.notify(linking.fault_words(error.status, str(error)), severity="error", timeout=12)

    def action_help(self) -> None:
        if len(self.screen_stack) == 1:
            self.push_screen(Read("Keys", chrome.help_lines(self.view.name_shown, self.view.hints)))

    def action_leave(self) -> None:
        if self._ends_relay:
            self._leave_with_relay()
        else:
            self.exit(0)

    @work(exclusive=True, group="question")
    async def _leave_with_relay(self) -> None:
        count = self.world.stats.total.open_requests if self.world.stats else 0
        first = f"; {count} open request{'s are' if count != 1 else ' is'} finished first" if count else ""
        if await self.push_screen_wait(Ask(f"End the relay, too? It ends with the dashboard{first}.")):
            self.exit(0)
