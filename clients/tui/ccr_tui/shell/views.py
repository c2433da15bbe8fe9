"""The views: each shows a part of the world, and asks the app for what a person wants changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from ccr_client import ControlError
from ccr_rpc.v1 import (
    config_pb2,
    dashboard_pb2,
    events_pb2,
    fleet_pb2,
    keys_pb2,
    providers_pb2,
    records_pb2,
    snapshot_pb2,
    stats_pb2,
)
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget

from ccr_tui.core import (
    acts,
    configs,
    filters,
    happenings,
    keys,
    linking,
    nodes,
    overview,
    providers,
    requests,
    routing,
    sessions,
)
from ccr_tui.core.table import Line, Listing, dim, plain
from ccr_tui.core.world import World
from ccr_tui.shell.questions import Ask, Pick, Read, Type
from ccr_tui.shell.rows import Reading, RowList

if TYPE_CHECKING:
    from ccr_tui.shell.app import Dashboard

NOTHING = Listing((), (), lambda _: ())
MAX_SESSIONS = 5000
MAX_OLDER_EVENTS = 10_000
EVENT_PAGE = 200


class View(Vertical):
    """A view. `hints` are its keys, the most wanted first; `wants` is what it needs beside what every view needs."""

    name_shown: ClassVar[str]
    hints: ClassVar[tuple[tuple[str, str], ...]] = ()
    match = ""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("slash", "match", "Find")]

    @property
    def dashboard(self) -> Dashboard:
        """The app, which alone talks to the control plane."""
        return cast("Dashboard", self.app)

    def wants(self) -> dashboard_pb2.WatchRequest | None:
        """What the second stream is to bring. None: nothing."""
        return None

    def show(self, world: World, now_s: float) -> None:
        """Paint."""
        raise NotImplementedError

    def opened(self) -> None:
        """It has come to the front."""

    def focus_widget(self) -> Widget:
        """What takes the keys."""
        return self.query_one(RowList)

    def repaint(self) -> None:
        """Paint with what is known."""
        self.show(self.dashboard.world, self.dashboard.now_s)

    def under_cursor(self) -> str | None:
        """The key of the row with the cursor."""
        return self.query_one(RowList).key

    @work(exclusive=True, group="question")
    async def action_match(self) -> None:
        typed = await self.app.push_screen_wait(Type("Show only rows with", self.match, "empty: all rows"))
        if typed is not None:
            self.match = typed.strip()
            self.repaint()


class Overview(View):
    """Figures, what wants attention, and the providers."""

    name_shown = "overview"
    hints = (("enter", "provider"),)

    def compose(self) -> ComposeResult:
        yield Reading(id="figures", takes_keys=False)
        yield Reading(id="attention", takes_keys=False)
        yield RowList(NOTHING, id="overview-providers")
        yield RowList(NOTHING, id="overview-events")

    def focus_widget(self) -> Widget:
        return self.query_one("#overview-providers", RowList)

    def show(self, world: World, now_s: float) -> None:
        is_tall = self.size.height >= 24
        figures = overview.lines(world, self.size.width)
        wrong = overview.attention(world, now_s)
        most = max(2, self.size.height // 4)
        if len(wrong) > most:
            wrong = [*wrong[: most - 1], (dim(f"and {len(wrong) - most + 1} more"),)]
        if not wrong and world.providers is not None:
            wrong = [(("● ", "good"), plain("all is well"))]
        for name, lines in (("#figures", figures), ("#attention", wrong)):
            reading = self.query_one(name, Reading)
            reading.styles.height = len(lines) + (1 if is_tall else 0)
            reading.show(lines)
        self.query_one("#overview-providers", RowList).show(providers.listing(world, now_s, self.match))
        happened = self.query_one("#overview-events", RowList)
        happened.display = self.size.height >= 36
        if happened.display:
            happened.show(happenings.listing(world, now_s))

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        event.stop()
        name = "providers" if event.rows.id == "overview-providers" else "events"
        self.dashboard.action_go(name, event.key)


class Providers(View):
    """Health lights, circuits, rates and what may be done about them."""

    name_shown = "providers"
    hints = (
        ("enter", "details"),
        ("e", "enable"),
        ("d", "drain"),
        ("x", "disable"),
        ("c", "reset circuit"),
        ("w", "weight"),
        ("o", "priority"),
        ("b", "probe"),
        ("r", "requests"),
        ("/", "find"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", f"state({providers_pb2.PROVIDER_STATE_ENABLED})", "Enable"),
        Binding("d", f"state({providers_pb2.PROVIDER_STATE_DRAINING})", "Drain"),
        Binding("x", f"state({providers_pb2.PROVIDER_STATE_DISABLED})", "Disable"),
        Binding("c", "reset", "Reset circuit"),
        Binding("b", "probe", "Probe"),
        Binding("w", "number('weight')", "Weight"),
        Binding("o", "number('priority')", "Priority"),
        Binding("r", "requests", "Its requests"),
    ]

    def compose(self) -> ComposeResult:
        yield RowList(NOTHING, id="provider-rows")

    def show(self, world: World, now_s: float) -> None:
        self.query_one(RowList).show(providers.listing(world, now_s, self.match))

    def _chosen(self) -> providers_pb2.ProviderStatus | None:
        name = self.under_cursor()
        return next((one for one in self.dashboard.world.providers or () if one.name == name), None)

    def action_state(self, state: providers_pb2.ProviderState.ValueType) -> None:
        if one := self._chosen():
            self.dashboard.perform(acts.provider_state(one, state))

    def action_reset(self) -> None:
        if one := self._chosen():
            self.dashboard.perform(acts.reset_circuit(one))

    def action_probe(self) -> None:
        if one := self._chosen():
            self.dashboard.perform(acts.probe(one))

    def action_number(self, field: str) -> None:
        if one := self._chosen():
            now = str(getattr(one, field))
            self.dashboard.perform_number(one.name, field, now, lambda text: acts.provider_number(one, field, text))

    def action_requests(self) -> None:
        if one := self._chosen():
            self.dashboard.action_go("live", f"provider={one.name}")

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        event.stop()
        if one := self._chosen():
            told = self.dashboard.world.figures.get(one.name)
            self.app.push_screen(Read(one.name, providers.detail(one, told, self.dashboard.now_s)))


class Keys(View):
    """Keys, and the accounts behind them with their budgets."""

    name_shown = "keys"
    hints = (
        ("enter", "details"),
        ("tab", "accounts"),
        ("e", "enable"),
        ("d", "drain"),
        ("x", "disable"),
        ("w", "weight"),
        ("o", "priority"),
        ("/", "find"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", f"state({snapshot_pb2.KEY_STATE_ACTIVE})", "Enable"),
        Binding("d", f"state({snapshot_pb2.KEY_STATE_DEPRECATED})", "Drain"),
        Binding("x", f"state({snapshot_pb2.KEY_STATE_DISABLED})", "Disable"),
        Binding("w", "number('weight')", "Weight"),
        Binding("o", "number('priority')", "Priority"),
    ]

    def compose(self) -> ComposeResult:
        yield RowList(NOTHING, id="key-rows")
        yield RowList(NOTHING, id="scope-rows")

    def wants(self) -> dashboard_pb2.WatchRequest:
        return dashboard_pb2.WatchRequest(keys=True)

    def focus_widget(self) -> Widget:
        return self.query_one("#key-rows", RowList)

    def show(self, world: World, now_s: float) -> None:
        self.query_one("#key-rows", RowList).show(keys.listing(world, now_s, self.match))
        self.query_one("#scope-rows", RowList).show(keys.scope_listing(world, now_s, self.match))

    def _chosen(self) -> keys_pb2.KeyStatus | None:
        name = self.query_one("#key-rows", RowList).key
        return next((one for one in self.dashboard.world.keys or () if keys.name_of(one) == name), None)

    def action_state(self, state: snapshot_pb2.KeyState.ValueType) -> None:
        if one := self._chosen():
            self.dashboard.perform(acts.key_state(one, state))

    def action_number(self, field: str) -> None:
        if one := self._chosen():
            now = str(getattr(one, field))
            self.dashboard.perform_number(keys.name_of(one), field, now, lambda text: acts.key_number(one, field, text))

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        event.stop()
        world, now_s = self.dashboard.world, self.dashboard.now_s
        if event.rows.id == "key-rows":
            if one := self._chosen():
                self.app.push_screen(Read(keys.name_of(one), keys.key_detail(one, world, now_s)))
            return
        for budget in world.scopes or ():
            if keys.scope_name(budget) == event.key:
                self.app.push_screen(Read(f"{budget.provider}/{budget.scope}", keys.scope_detail(budget, now_s)))


class Sessions(View):
    """Conversations and their agents."""

    name_shown = "sessions"
    hints = (("enter", "agents"), ("r", "requests"), ("m", "older"), ("/", "find"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "requests", "Its requests"),
        Binding("m", "older", "Older ones"),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.unfolded: set[str] = set()
        self.older: list[stats_pb2.Session] = []
        self._token = ""

    def compose(self) -> ComposeResult:
        yield RowList(NOTHING, id="session-rows")

    def wants(self) -> dashboard_pb2.WatchRequest:
        return dashboard_pb2.WatchRequest(sessions=True)

    def show(self, world: World, now_s: float) -> None:
        listing = sessions.listing(sessions.with_older(world.sessions, self.older), now_s, self.unfolded, self.match)
        self.query_one(RowList).show(listing)

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        event.stop()
        self.unfolded ^= {event.key.partition(sessions.AGENT)[0]}
        self.repaint()

    def action_requests(self) -> None:
        if key := self.under_cursor():
            filter_ = records_pb2.RecordFilter(session=key.partition(sessions.AGENT)[0])
            self.dashboard.action_go("live", filters.text_of(filter_))

    @work(exclusive=True, group="older")
    async def action_older(self) -> None:
        """The next thousand of the last day."""
        if len(self.older) >= MAX_SESSIONS:
            self.notify(f"no more than {MAX_SESSIONS:,} are shown")
            return
        request = stats_pb2.ListSessionsRequest(page_size=1000, page_token=self._token)
        try:
            answer = await self.dashboard.plane.stats.ListSessions(request)
        except ControlError as error:
            self.dashboard.say_fault(error)
            return
        self.older += answer.sessions
        self._token = answer.next_page_token
        self.notify(f"{len(self.older):,} sessions of the last day" + ("" if self._token else ": all there are"))
        self.repaint()


class Live(View):
    """Requests as they end."""

    name_shown = "live"
    hints = (("enter", "why there"), ("/", "filter"), ("a", "all"), ("f", "failures"), ("p", "pause"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "filter_by('')", "All"),
        Binding("f", "filter_by('failed-attempt')", "Failures"),
        Binding("p", "pause", "Pause"),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.filter = records_pb2.RecordFilter()
        self.frozen: Sequence[records_pb2.StoredRecord] | None = None

    def compose(self) -> ComposeResult:
        yield Reading(id="filter", takes_keys=False)
        yield RowList(NOTHING, id="live-rows")

    def wants(self) -> dashboard_pb2.WatchRequest:
        return dashboard_pb2.WatchRequest(records=self.filter)

    def show(self, world: World, now_s: float) -> None:
        said = filters.text_of(self.filter)
        skipped = f", {world.skipped:,} not shown: too many at once" if world.skipped else ""
        paused: Line = ((" paused ", "warn"),) if self.frozen is not None else ()
        head = (dim("only "), (said, "info")) if said else (dim("all requests"),)
        self.query_one(Reading).show([(*head, dim(skipped), *paused)])
        empty = "no request fits yet" if said else "no request yet"
        self.query_one(RowList).show(requests.listing(requests.shown(world, self.frozen), now_s, when_empty=empty))

    @work(exclusive=True, group="question")
    async def action_match(self) -> None:
        said, hint = filters.text_of(self.filter), filters.HELP
        while (typed := await self.app.push_screen_wait(Type("Show only requests with", said, hint))) is not None:
            try:
                filters.parse(typed)
            except filters.BadFilter as bad:
                said, hint = typed, str(bad)
                continue
            self.action_filter_by(typed)
            return

    def action_filter_by(self, text: str) -> None:
        """Another filter. `text` must be one."""
        self.filter = filters.parse(text)
        self.frozen = None
        self.dashboard.forget_records()
        self.repaint()

    def action_pause(self) -> None:
        self.frozen = (self.dashboard.world.records or ()) if self.frozen is None else None
        self.repaint()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        event.stop()
        for stored in requests.shown(self.dashboard.world, self.frozen):
            if stored.record.request_id == event.key:
                title = f"Why {event.key} went where it went"
                self.app.push_screen(Read(title, requests.detail(stored, self.dashboard.now_s)))
                return


class Routing(View):
    """Strategies and routes; where a request would go."""

    name_shown = "routes"
    hints = (("s", "strategy"), ("enter", "explain"), ("f5", "again"))
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "strategy", "Strategy"),
        Binding("x", "explain", "Explain a request"),
        Binding("f5", "look", "Look again"),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.routing: routing.Routing | None = None
        self.problem = ""
        self.asked = ""
        self._hash: tuple[str, int, int] | None = None

    def compose(self) -> ComposeResult:
        yield Reading(id="routing-facts", takes_keys=False)
        yield RowList(NOTHING, id="route-rows")

    def opened(self) -> None:
        self.action_look()

    def show(self, world: World, now_s: float) -> None:  # noqa: ARG002 - the views' own interface
        if world.config is not None:
            seen = (world.config.config_hash, world.config.snapshot_version, world.config.overlay_entries)
            if self._hash is not None and seen != self._hash:
                self.action_look()
            self._hash = seen
        if self.problem:
            said: Line = ((self.problem, "bad"),)
        elif self.routing is None:
            said = (dim("asking for the configuration"),)
        else:
            said = (dim("strategy "), (self.routing.strategy, "strong"), dim(f"   {self.routing.facts}"))
        self.query_one(Reading).show([said])
        self.query_one(RowList).show(routing.listing(self.routing) if self.routing else NOTHING)

    @work(exclusive=True, group="look")
    async def action_look(self) -> None:
        """Read the routes from the configuration in force."""
        import yaml  # noqa: PLC0415 - only this view needs it

        try:
            answer = await self.dashboard.plane.config.GetConfig(config_pb2.GetConfigRequest())
            self.routing, self.problem = routing.read(yaml.safe_load(answer.redacted_yaml)), ""
            overlay = await self.dashboard.plane.config.GetOverlay(config_pb2.GetOverlayRequest())
            self.routing = routing.with_overlay(self.routing, overlay.entries)
        except ControlError as error:
            if self.routing is None or error.status != "UNIMPLEMENTED":
                self.problem = linking.fault_words(error.status, str(error))
        except yaml.YAMLError:
            self.problem = "the configuration it sends cannot be read"
        self.repaint()

    @work(exclusive=True, group="question")
    async def action_strategy(self) -> None:
        route = self.under_cursor()
        if route is None or self.routing is None:
            return
        if why := acts.why_not(acts.OPERATOR, self.dashboard.world.me):
            self.notify(why, severity="warning")
            return
        now = next((one.strategy for one in self.routing.routes if one.name == route), self.routing.strategy)
        whose = f"route {route}" if route else "all routes that do not say it themselves"
        picked = await self.app.push_screen_wait(
            Pick(f"How are the candidates of {whose} ordered?", routing.strategies(), now)
        )
        if picked is not None:
            await self.dashboard.carry_out(acts.strategy(route, picked))
            self.action_look()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        event.stop()
        self.action_explain()

    @work(exclusive=True, group="question")
    async def action_explain(self) -> None:
        title, hint = "Where would a request go? A model, then what else is known", routing.HELP
        while (typed := await self.app.push_screen_wait(Type(title, self.asked, hint))) is not None:
            self.asked = typed
            try:
                question = routing.question(typed)
            except routing.BadQuestion as bad:
                hint = str(bad)
                continue
            try:
                answer = await self.dashboard.plane.routes.ExplainRoute(question)
            except ControlError as error:
                self.dashboard.say_fault(error)
                return
            await self.app.push_screen_wait(Read(f"Where {typed} would go", routing.answer_lines(question, answer)))
            return


class Nodes(View):
    """The fleet."""

    name_shown = "nodes"
    hints = (("enter", "details"), ("d", "drain"), ("/", "find"))
    BINDINGS: ClassVar[list[BindingType]] = [Binding("d", "drain", "Drain")]

    def compose(self) -> ComposeResult:
        yield RowList(NOTHING, id="node-rows")

    def show(self, world: World, now_s: float) -> None:
        self.query_one(RowList).show(nodes.listing(world, now_s, self.match))

    def _chosen(self) -> fleet_pb2.Node | None:
        name = self.under_cursor()
        return next((node for node in self.dashboard.world.nodes or () if node.node_id == name), None)

    def action_drain(self) -> None:
        if node := self._chosen():
            self.dashboard.perform(acts.drain_node(node))

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        event.stop()
        if node := self._chosen():
            lines = nodes.detail(node, self.dashboard.world.newest_version, self.dashboard.now_s)
            self.app.push_screen(Read(node.node_id, lines))


class Events(View):
    """What happened besides requests."""

    name_shown = "events"
    hints = (("enter", "details"), ("m", "older"), ("t", "kind"), ("/", "find"))
    BINDINGS: ClassVar[list[BindingType]] = [Binding("t", "kind", "Kind"), Binding("m", "older", "Older ones")]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.kind: events_pb2.EventKind.ValueType = events_pb2.EVENT_KIND_UNSPECIFIED
        self.older = happenings.NONE_OLDER
        self._told: tuple[events_pb2.Event, ...] = ()  # when it was painted last
        self._is_asking = False

    def compose(self) -> ComposeResult:
        yield Reading(id="event-head", takes_keys=False)
        yield RowList(NOTHING, id="event-rows")

    def show(self, world: World, now_s: float) -> None:
        self._keep_up(world)
        listing = happenings.listing(world, now_s, self.kind, self.match, self.older)
        self.query_one(Reading).show([happenings.head(listing.keys, self.kind, self.match, self.older)])
        self.query_one(RowList).show(listing)

    def on_row_list_at_end(self, event: RowList.AtEnd) -> None:
        event.stop()
        if not self.older.is_all:
            self.action_older()

    @work(group="older")
    async def action_older(self) -> None:
        """The next page that holds an older one; keys pressed while it is on its way ask for no other one."""
        if self._is_asking:
            return
        if self.older.is_all or len(self.older.events) >= MAX_OLDER_EVENTS:
            self.notify(
                "these are all" if self.older.is_all else f"no more than {MAX_OLDER_EVENTS:,} older ones are shown"
            )
            return
        self._is_asking = True
        try:
            await self._ask_older()
        except ControlError as error:
            self.dashboard.say_fault(error)
        finally:
            self._is_asking = False
        self.repaint()

    async def _ask_older(self) -> None:
        kind, before = self.kind, len(self.older.events)
        while len(self.older.events) == before and not self.older.is_all:
            request = events_pb2.ListEventsRequest(kind=kind, page_size=EVENT_PAGE, page_token=self.older.token)
            page = await self.dashboard.plane.events.ListEvents(request)
            if kind != self.kind:
                return
            self._keep_up(self.dashboard.world)
            self.older = happenings.with_page(self.older, page, self.dashboard.world.events)

    def _keep_up(self, world: World) -> None:
        self.older = happenings.carried(self.older, self._told, world.events, self.kind)
        self._told = world.events

    @work(exclusive=True, group="question")
    async def action_kind(self) -> None:
        names = [happenings.kind_name(kind) for kind in happenings.KINDS]
        now = happenings.kind_name(self.kind)
        picked = await self.app.push_screen_wait(Pick("Which events?", names, now))
        if picked is not None:
            self.kind, self.older = happenings.KINDS[names.index(picked)], happenings.NONE_OLDER
            self.repaint()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        event.stop()
        for one in (*self.dashboard.world.events, *self.older.events):
            if str(one.id) == event.key:
                self.app.push_screen(Read(f"Event {one.id}", happenings.detail(one, self.dashboard.now_s)))


class Config(View):
    """The configuration's revisions."""

    name_shown = "config"
    hints = (
        ("enter", "diff"),
        ("r", "reload"),
        ("b", "roll back"),
        ("t", "text"),
        ("o", "run-time changes"),
        ("z", "take them back"),
        ("n", "diff to file"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "reload", "Reload"),
        Binding("b", "rollback", "Roll back"),
        Binding("t", "text", "Text"),
        Binding("o", "overlay", "Run-time changes"),
        Binding("z", "clear", "Take them back"),
        Binding("n", "diff_file", "Diff to the file"),
        Binding("f5", "look", "Look again"),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.revisions: list[config_pb2.Revision] = []
        self.problem = ""
        self._seen: int | None = None

    def compose(self) -> ComposeResult:
        yield Reading(id="config-state", takes_keys=False)
        yield RowList(NOTHING, id="revision-rows")

    def opened(self) -> None:
        self.action_look()

    def show(self, world: World, now_s: float) -> None:
        in_force = world.config.revision if world.config else 0
        if self._seen is not None and in_force != self._seen:
            self.action_look()
        self._seen = in_force
        said = configs.state(world, now_s)
        if self.problem:
            said.append(((f"revisions: {self.problem}", "bad"),))
        state = self.query_one(Reading)
        state.styles.height = len(said) + 1
        state.show(said)
        self.query_one(RowList).show(configs.listing(self.revisions, in_force, now_s))

    @work(exclusive=True, group="look")
    async def action_look(self) -> None:
        """Ask for the revisions again."""
        try:
            answer = await self.dashboard.plane.config.ListRevisions(config_pb2.ListRevisionsRequest(page_size=200))
            self.revisions, self.problem = list(answer.revisions), ""
        except ControlError as error:
            self.problem = linking.fault_words(error.status, str(error))
        self.repaint()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        """What this revision changed: the difference to the one before it."""
        event.stop()
        number = int(event.key)
        before = max((one.number for one in self.revisions if one.number < number), default=0)
        if not before:
            self.notify("it is the first one that is kept", severity="warning")
            return
        self._diff(before, number, f"What revision {number} changed")

    def action_diff_file(self) -> None:
        self._diff(0, 0, "What the file as it is now would change")

    @work(exclusive=True, group="question")
    async def _diff(self, before: int, after: int, title: str) -> None:
        """Revisions are compared for everybody; the file may name what only admins may see."""
        if not after and (why := acts.why_not(acts.ADMIN, self.dashboard.world.me)):
            self.notify(why, severity="warning")
            return
        request = config_pb2.DiffConfigRequest(from_revision=before, to_revision=after)
        await self._read(title, lambda: self.dashboard.plane.config.DiffConfig(request), configs.diff_lines)

    @work(exclusive=True, group="question")
    async def action_text(self) -> None:
        await self._read(
            "The effective configuration",
            lambda: self.dashboard.plane.config.GetConfig(config_pb2.GetConfigRequest()),
            lambda answer: [(plain(line),) for line in answer.redacted_yaml.splitlines()],
        )

    @work(exclusive=True, group="question")
    async def action_overlay(self) -> None:
        await self._read(
            "Changed at run time",
            lambda: self.dashboard.plane.config.GetOverlay(config_pb2.GetOverlayRequest()),
            lambda answer: configs.overlay_lines(answer, self.dashboard.now_s),
        )

    async def _read(self, title: str, ask: Callable[[], object], lines: Callable[..., list[Line]]) -> None:
        try:
            answer = await ask()  # type: ignore[misc] # a call of gRPC's is awaitable
        except ControlError as error:
            self.dashboard.say_fault(error)
            return
        await self.app.push_screen_wait(Read(title, lines(answer)))

    def action_reload(self) -> None:
        self.dashboard.perform(acts.reload())

    def action_clear(self) -> None:
        self.dashboard.perform(acts.clear_overlay())

    @work(exclusive=True, group="question")
    async def action_rollback(self) -> None:
        """Show what going back would change, with the question below it."""
        if (key := self.under_cursor()) is None:
            return
        act = acts.rollback(int(key))
        if why := acts.why_not(act.role, self.dashboard.world.me):
            self.notify(why, severity="warning")
            return
        dry = config_pb2.RollbackConfigRequest(revision=int(key), dry_run=True)
        try:
            found = await self.dashboard.plane.config.RollbackConfig(dry)
        except ControlError as error:
            self.dashboard.say_fault(error)
            return
        if await self.app.push_screen_wait(Ask(act.question, configs.diff_lines(found))):
            await self.dashboard.call(act)
            self.action_look()


VIEWS: tuple[type[View], ...] = (Overview, Providers, Keys, Sessions, Live, Routing, Nodes, Events, Config)
