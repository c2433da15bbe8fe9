"""The dashboard's views and acts: keys are pressed, then screens and calls are looked at. The control plane is our fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from ccr_client import connect_async
from ccr_rpc.v1 import (
    access_pb2,
    events_pb2,
    providers_pb2,
    routes_pb2,
    snapshot_pb2,
    usage_pb2,
)
from ccr_tui.core.world import Live
from ccr_tui.shell.app import Dashboard
from ccr_tui.shell.questions import Ask, Read
from ccr_tui.shell.rows import RowList
from support.fake_admin import FakeAdmin, Scene, at, fake_admin
from support.scenes import provider, record, small
from textual.events import Key
from textual.pilot import Pilot

SIZES = [(80, 24), (200, 60)]


@dataclass
class Seat:
    """Somebody in front of the dashboard."""

    app: Dashboard
    pilot: Pilot[int]
    admin: FakeAdmin

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until the screen is as it should be. Raises AssertionError with the screen if it does not get so."""
        try:
            async with asyncio.timeout(30):
                while not condition():
                    await self.pilot.pause(0.02)  # the screen has no event to wait for
        except TimeoutError:
            raise AssertionError(f"not within 30 s: {what}\n{self.text}") from None

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def sees(self, *words: str) -> None:
        """All of the words come on the screen."""
        await self.until(lambda: all(word in self.text for word in words), f"{words} on the screen")

    async def asks_and_gets(self, key: str, question: str, method: str) -> None:
        """A key asks once; yes calls the control plane."""
        await self.press(key)
        await self.until(lambda: isinstance(self.app.screen, Ask), "a question")
        assert question in self.app.screen.question  # type: ignore[attr-defined] # an Ask
        assert not self.admin.asked(method), "nothing is done before the answer"
        await self.press("y")
        await self.until(lambda: self.admin.asked(method), f"{method} is called")

    async def types(self, text: str) -> None:
        """Into the question in front, then enter."""
        await self.until(lambda: self.app.screen.query("Input"), "something to type into")
        self.app.screen.query_one("Input").value = text  # type: ignore[attr-defined] # an Input
        await self.press("enter")

    @property
    def text(self) -> str:
        """Everything on the screen."""
        height = self.app.size.height
        lines = self.app.screen._compositor.render_strips()  # what Textual's own snapshots are made from
        return "\n".join(strip.text for strip in lines[:height])

    @property
    def said(self) -> list[str]:
        """The messages shown."""
        return [note.message for note in self.app._notifications]

    @property
    def row(self) -> str | None:
        """The key of the row with the cursor."""
        return self.app.view.query_one(RowList).key


@asynccontextmanager
async def seated(
    directory: Path, scene: Scene | None = None, size: tuple[int, int] = (120, 40), *, ends_relay: bool = False
) -> AsyncIterator[Seat]:
    """The dashboard in front of a fake control plane, live."""
    async with fake_admin(directory, scene or small()) as (admin, door):
        app = Dashboard(lambda: connect_async(door), door.target, ends_relay=ends_relay)
        async with app.run_test(size=size) as pilot:
            seat = Seat(app, pilot, admin)
            if "Watch" not in admin.scene.refusals:
                await seat.until(lambda: isinstance(app.world.base, Live), "live")
            await seat.until(lambda: app.world.me is not None or "WhoAmI" in admin.scene.refusals, "who I am")
            yield seat


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("1", ["12.3/s", "412 ms", "$49.38", "local is passed by", "anthropic"]),
        ("2", ["anthropic", "zai", "✗ open", "2.3 s"]),
        ("3", ["team-a", "anthropic/org-", "█", "62%", "97%", "sliding"]),
        ("4", ["s-1", "s-2", "anthropic/team-a", "$0.040"]),
        ("5", ["claude-sonnet-4-5", "zai/team-a", "930 ms"]),
        ("6", ["failover", "small", "cost-based", "zai as glm-4.5-air"]),
        ("7", ["host/worker-0", "● serving", "◐ behind"]),
        ("8", ["circuit.open", "providers/zai", "audit"]),
        ("9", ["/etc/ccr.yaml", "revision", "● yes", "ops"]),
    ],
)
async def test_every_view_shows_its_part(tmp_path: Path, size: tuple[int, int], key: str, words: list[str]) -> None:
    """At the size of an old terminal and of a large one."""
    async with seated(tmp_path, size=size) as seat:
        await seat.press(key)
        await seat.sees("● live", "? help", *words)


async def test_nothing_is_wider_than_the_screen(tmp_path: Path) -> None:
    """A line that wraps would push others off the screen."""
    async with seated(tmp_path, size=(80, 24)) as seat:
        for key in "123456789":
            await seat.press(key)
            await seat.pilot.pause()
            assert all(len(line) <= 80 for line in seat.text.splitlines())
            assert "1overview 2providers 3keys 4sessions 5live 6routes 7nodes 8events 9config" in seat.text
            assert seat.text.splitlines()[-1].rstrip().endswith("q quit")


async def test_figures_move_without_a_key(tmp_path: Path) -> None:
    """The stream brings them."""
    async with seated(tmp_path) as seat:
        await seat.sees("12,345 ever")
        seat.admin.scene.stats.total.requests = 12_399
        seat.admin.changed()
        await seat.sees("12,399 ever")


@pytest.mark.parametrize(
    ("key", "question", "method", "field", "value"),
    [
        ("e", "Enable anthropic", "SetProviderState", "state", providers_pb2.PROVIDER_STATE_ENABLED),
        ("d", "Drain anthropic", "SetProviderState", "state", providers_pb2.PROVIDER_STATE_DRAINING),
        ("x", "Disable anthropic", "SetProviderState", "state", providers_pb2.PROVIDER_STATE_DISABLED),
        ("c", "Close the circuits of anthropic", "ResetCircuit", "provider", "anthropic"),
        ("b", "Probe anthropic", "ProbeProvider", "provider", "anthropic"),
    ],
)
async def test_acts_on_a_provider(
    tmp_path: Path, key: str, question: str, method: str, field: str, value: object
) -> None:
    """Each asks once, names the state it is made upon, and says what came of it."""
    async with seated(tmp_path) as seat:
        await seat.press("2")
        await seat.asks_and_gets(key, question, method)
        request = seat.admin.asked(method)[0]
        assert getattr(request, field) == value
        assert getattr(request, "etag", "etag-anthropic") == "etag-anthropic"
        await seat.until(lambda: seat.said, "the result")
        assert seat.said[0].startswith("anthropic")


async def test_keys_may_come_faster_than_the_screen(tmp_path: Path) -> None:
    """A view and its first act in one go: the second key belongs to the new view."""
    async with seated(tmp_path) as seat:
        for key in ("9", "2", "x"):
            seat.app.post_message(Key(key, key))
        await seat.until(lambda: isinstance(seat.app.screen, Ask), "the question")
        assert "Disable anthropic" in seat.app.screen.question  # type: ignore[attr-defined] # an Ask


async def test_a_no_changes_nothing(tmp_path: Path) -> None:
    """Also enter, which somebody may have pressed out of habit."""
    async with seated(tmp_path) as seat:
        await seat.press("2")
        for answer in ("n", "escape", "enter"):
            await seat.press("x")
            await seat.until(lambda: isinstance(seat.app.screen, Ask), "a question")
            await seat.press(answer)
            await seat.until(lambda: not isinstance(seat.app.screen, Ask), "the view again")
        assert not seat.admin.asked("SetProviderState")


@pytest.mark.parametrize(("key", "field", "good"), [("w", "weight", "5"), ("o", "priority", "0")])
async def test_numbers_of_a_provider(tmp_path: Path, key: str, field: str, good: str) -> None:
    """What is no number is said, and can be mended."""
    async with seated(tmp_path) as seat:
        await seat.press("2", "down", key)
        await seat.types("many")
        await seat.sees("a whole number")
        assert not seat.admin.asked("UpdateProvider")
        await seat.types(good)
        await seat.until(lambda: seat.admin.asked("UpdateProvider"), "the call")
        request = seat.admin.asked("UpdateProvider")[0]
        assert (request.provider, getattr(request, field), request.HasField(field)) == ("zai", int(good), True)
        await seat.until(lambda: any(f"zai has {field} {good}" in note for note in seat.said), "the result")


@pytest.mark.parametrize(
    ("key", "state"),
    [
        ("e", snapshot_pb2.KEY_STATE_ACTIVE),
        ("d", snapshot_pb2.KEY_STATE_DEPRECATED),
        ("x", snapshot_pb2.KEY_STATE_DISABLED),
    ],
)
async def test_acts_on_a_key(tmp_path: Path, key: str, state: int) -> None:
    """The same keys as for providers."""
    async with seated(tmp_path) as seat:
        await seat.press("3")
        await seat.sees("team-b")
        await seat.press("down")
        await seat.asks_and_gets(key, "key anthropic/team-b?", "UpdateKey")
        request = seat.admin.asked("UpdateKey")[0]
        assert (request.label, request.state, request.etag) == ("team-b", state, "etag-team-b")


async def test_the_weight_of_a_key(tmp_path: Path) -> None:
    """Weights are set where they are seen."""
    async with seated(tmp_path) as seat:
        await seat.press("3")
        await seat.sees("team-a")
        await seat.press("w")
        await seat.types("3")
        await seat.until(lambda: seat.admin.asked("UpdateKey"), "the call")
        assert seat.admin.asked("UpdateKey")[0].weight == 3
        assert not seat.admin.asked("UpdateKey")[0].state


async def test_details_of_an_account(tmp_path: Path) -> None:
    """Every limit with a bar of its own."""
    async with seated(tmp_path) as seat:
        await seat.press("3")
        await seat.sees("team-a")
        await seat.press("tab", "enter")
        await seat.sees("62,000 used, 82,000 leased, 100k a minute", "10 used, 100 leased, 1,000 a minute")


async def test_a_session_unfolds_into_its_agents(tmp_path: Path) -> None:
    """And its requests are a key away."""
    async with seated(tmp_path) as seat:
        await seat.press("4")
        await seat.sees("▸ s-1")
        await seat.press("enter")
        await seat.sees("▾ s-1", "├─ main", "└─ explorer")
        await seat.press("down", "down", "r")
        await seat.sees("session=s-1", "anthropic/team-a")
        assert seat.admin.asked("Watch")[-1].records.session == "s-1"
        assert "zai/team-a" not in seat.text


async def test_older_sessions_are_asked_for(tmp_path: Path) -> None:
    """The stream brings those of the last minutes."""
    async with seated(tmp_path) as seat:
        await seat.press("4")
        await seat.sees("s-1")
        await seat.press("m")
        await seat.until(lambda: any("2 sessions" in note for note in seat.said), "how many there are")


async def test_live_requests_come_and_are_filtered(tmp_path: Path) -> None:
    """The control plane filters, so that rare ones are found among many."""
    async with seated(tmp_path) as seat:
        await seat.press("5")
        await seat.until(lambda: seat.row == "req_000003", "the newest first")
        seat.admin.scene.records.append(record(4))
        seat.admin.changed()
        await seat.until(lambda: seat.row == "req_000004", "the newest first")
        await seat.press("f")
        await seat.until(lambda: seat.row == "req_000002", "only what failed over")
        await seat.press("/")
        await seat.types("provider=anthropic status=5")
        await seat.sees("status=5: a filter is made of")
        await seat.types("provider=anthropic")
        await seat.until(lambda: seat.row == "req_000004", "the filter")
        assert seat.admin.asked("Watch")[-1].records.provider == "anthropic"
        await seat.press("a")
        await seat.sees("all requests", "zai/team-a")


async def test_a_paused_tail_stands_still(tmp_path: Path) -> None:
    """What somebody reads does not run away."""
    async with seated(tmp_path) as seat:
        await seat.press("5")
        await seat.until(lambda: seat.row == "req_000003", "rows")
        await seat.press("p")
        await seat.sees("paused")
        seat.admin.scene.records.append(record(4))
        seat.admin.changed()
        await seat.until(lambda: len(seat.app.world.records or ()) == 4, "it has arrived")
        await seat.pilot.pause()
        assert seat.row == "req_000003"
        await seat.press("p")
        await seat.until(lambda: seat.row == "req_000004", "it goes on")


async def test_the_cursor_stays_on_its_request(tmp_path: Path) -> None:
    """While others arrive above it."""
    async with seated(tmp_path) as seat:
        await seat.press("5")
        await seat.until(lambda: seat.row == "req_000003", "rows")
        await seat.press("down")
        for number in range(4, 60):
            seat.admin.scene.records.append(record(number))
        seat.admin.changed()
        await seat.until(lambda: len(seat.app.world.records or ()) == 59, "they have arrived")
        await seat.until(lambda: seat.row == "req_000002" and "zai/team-a" in seat.text, "the row is still in sight")


async def test_the_decision_trace_is_that_of_ccr_explain(tmp_path: Path) -> None:
    """One wording for both."""
    async with seated(tmp_path) as seat:
        await seat.press("5")
        await seat.until(lambda: seat.row == "req_000003", "rows")
        await seat.press("down", "enter")
        await seat.sees(
            "Why req_000002 went where it went",
            "strategy failover; its session's pin was kept",
            "candidate 1: local/k as m",
            "passed over: local: circuit open",
            "attempt 1: local/k: overloaded 529 after 9 ms",
            "attempt 2: zai/team-a: served 200 after 900 ms",
        )
        await seat.press("escape")
        assert seat.row == "req_000002"


async def test_the_strategy_of_a_route(tmp_path: Path) -> None:
    """Picked from a list, asked once."""
    async with seated(tmp_path) as seat:
        await seat.press("6")
        await seat.sees("small")
        await seat.press("down", "s")
        await seat.sees("How are the candidates of route small ordered?", "least-loaded")
        await seat.press("home", "enter")
        await seat.until(lambda: isinstance(seat.app.screen, Ask), "the question")
        await seat.press("y")
        await seat.until(lambda: seat.admin.asked("SetStrategy"), "the call")
        request = seat.admin.asked("SetStrategy")[0]
        assert (request.route, request.strategy) == ("small", snapshot_pb2.STRATEGY_SIMPLE_SHUFFLE)


async def test_a_hypothetical_request_is_explained(tmp_path: Path) -> None:
    """In the words of `ccr route`."""
    async with seated(tmp_path) as seat:
        decision = usage_pb2.Decision(
            strategy="failover", candidates=[usage_pb2.Considered(provider="zai", model="glm")], candidate_count=1
        )
        answer = snapshot_pb2.RouteAnswer(route="small", decision=decision, snapshot_version=7)
        seat.admin.explained = routes_pb2.ExplainRouteResponse(answer=answer, node_id="host/worker-0")
        await seat.press("6")
        await seat.sees("small")
        await seat.press("enter")
        await seat.types("claude-haiku-4-5 thinks")
        await seat.sees("thinks: after the model come any of")
        await seat.types("claude-haiku-4-5 thinking tokens=900")
        await seat.sees("claude-haiku-4-5 would go to zai as glm", "route small of snapshot 7, asked of host/worker-0")
        asked = seat.admin.asked("ExplainRoute")[0].request
        assert (asked.model, asked.thinking, asked.input_tokens) == ("claude-haiku-4-5", True, 900)


async def test_a_node_is_drained(tmp_path: Path) -> None:
    """The question says what is open there."""
    async with seated(tmp_path) as seat:
        await seat.press("7")
        await seat.asks_and_gets("d", "Have host/worker-0 finish its 2 requests and end?", "DrainNode")


async def test_events_by_kind_with_before_and_after(tmp_path: Path) -> None:
    """Who changed what, and from what."""
    async with seated(tmp_path) as seat:
        await seat.press("8")
        await seat.sees("circuit.open")
        await seat.press("t")
        await seat.sees("Which events?")
        await seat.press("down", "enter")  # audit
        await seat.until(lambda: "circuit.open" not in seat.text and "provider.update" in seat.text, "audit alone")
        await seat.press("enter")
        await seat.sees("Before", '"weight": 1', "After", '"weight": 2', "ops")


def past(count: int, first: int = 1) -> list[events_pb2.Event]:
    """Events, oldest first; every tenth is an alert."""
    return [
        events_pb2.Event(
            id=number,
            at=at(100_000 - number),
            kind=events_pb2.EVENT_KIND_AUDIT if number % 10 else events_pb2.EVENT_KIND_ALERT,
            action=f"provider.update-{number}",
            resource="providers/zai",
        )
        for number in range(first, first + count)
    ]


async def test_older_events_come_when_somebody_goes_on_at_the_end(tmp_path: Path) -> None:
    """The stream tells the newest 50; all that are kept can be read, and none is missing or told twice."""
    scene = small()
    scene.events = past(500)
    async with seated(tmp_path, scene) as seat:
        await seat.press("8")
        await seat.sees("the newest 50;", "provider.update-500")
        rows = seat.app.view.query_one(RowList)
        await seat.press("end", "down")
        await seat.until(lambda: len(rows.listing.keys) == 200, "a page, of which 50 were known")
        assert seat.row == "451", "the cursor stays where it was"
        await seat.press("down")
        assert seat.row == "450"
        for expected in (400, 500):
            await seat.press("m")
            await seat.until(lambda: len(rows.listing.keys) == expected, "another page")  # noqa: B023 - waited for here
        assert list(rows.listing.keys) == [str(number) for number in range(500, 0, -1)]
        await seat.sees("500: all that are kept")
        await seat.press("end", "enter")
        await seat.sees("Event 1", "provider.update-1")
        asked = seat.admin.asked("ListEvents")
        assert [(one.page_size, one.page_token) for one in asked] == [(200, ""), (200, "301"), (200, "101")]


async def test_new_events_do_not_move_what_somebody_reads(tmp_path: Path) -> None:
    """Neither under the cursor, nor where the wheel has led to."""
    scene = small()
    scene.events = past(300)
    async with seated(tmp_path, scene) as seat:
        await seat.press("8")
        await seat.sees("provider.update-300")
        await seat.press("m", *["down"] * 3)
        await seat.until(lambda: seat.row == "297", "the cursor is below")
        for _ in range(2):
            before = seat.text.splitlines().index(next(line for line in seat.text.splitlines() if "-297 " in line))
            scene.events += past(7, first=len(scene.events) + 1)
            seat.admin.changed()
            rows = seat.app.view.query_one(RowList)
            newest = str(scene.events[-1].id)
            await seat.until(lambda: rows.listing.keys[0] == newest, "they came")  # noqa: B023 - waited for here
            await seat.pilot.pause()
            assert "-297 " in seat.text.splitlines()[before]
            assert rows.cursor == 0 or seat.row == "297"
            rows.cursor = 0  # as if it had been scrolled with the wheel alone
            rows.scroll_to(y=rows.scroll_offset.y or 3, animate=False, force=True)
            await seat.pilot.pause()


async def test_older_events_of_a_kind(tmp_path: Path) -> None:
    """The control plane looks for them; another kind begins anew."""
    scene = small()
    scene.events = past(500)
    async with seated(tmp_path, scene) as seat:
        await seat.press("8")
        await seat.sees("the newest 50;")
        await seat.press("t")
        await seat.sees("Which events?")
        await seat.press(*["down"] * 4, "enter")
        await seat.sees("only alert", "the newest 5;")
        await seat.press("m")
        await seat.sees("50: all that are kept")
        (asked,) = seat.admin.asked("ListEvents")
        assert asked.kind == events_pb2.EVENT_KIND_ALERT
        await seat.press("m")
        await seat.until(lambda: "these are all" in seat.said, "a word")


async def test_the_configuration_is_reloaded(tmp_path: Path) -> None:
    """And the result is said."""
    async with seated(tmp_path) as seat:
        await seat.press("9")
        await seat.asks_and_gets("r", "Read the configuration's file again", "ReloadConfig")
        await seat.until(lambda: "configuration changed (snapshot 9)" in seat.said, "the result")


async def test_going_back_shows_what_would_change_first(tmp_path: Path) -> None:
    """A dry run comes before the question."""
    async with seated(tmp_path) as seat:
        await seat.press("9")
        await seat.sees("ops")
        await seat.press("down", "b")
        await seat.sees("Put revision 1 in force again", "+weight: 2")
        assert [one.dry_run for one in seat.admin.asked("RollbackConfig")] == [True]
        await seat.press("y")
        await seat.until(lambda: len(seat.admin.asked("RollbackConfig")) == 2, "the call")
        assert not seat.admin.asked("RollbackConfig")[1].dry_run
        await seat.until(lambda: "revision 3 is in force (snapshot 9)" in seat.said, "the result")


async def test_what_a_revision_changed(tmp_path: Path) -> None:
    """Against the one before it."""
    async with seated(tmp_path) as seat:
        await seat.press("9")
        await seat.sees("ops")
        await seat.press("enter")
        await seat.sees("What revision 2 changed", "-weight: 1")
        request = seat.admin.asked("DiffConfig")[0]
        assert (request.from_revision, request.to_revision) == (1, 2)


async def test_a_viewer_sees_what_a_revision_changed(tmp_path: Path) -> None:
    """There is no secret in it."""
    scene = small()
    scene.role = access_pb2.ROLE_VIEWER
    async with seated(tmp_path, scene) as seat:
        await seat.press("9")
        await seat.sees("ops")
        await seat.press("enter")
        await seat.sees("What revision 2 changed", "-weight: 1")


@pytest.mark.parametrize(("key", "words"), [("t", "glm-4.5-air"), ("o", "providers/zai weight = 2 (configured: 1)")])
async def test_the_text_and_the_changes_at_run_time(tmp_path: Path, key: str, words: str) -> None:
    """Both are a key away."""
    async with seated(tmp_path) as seat:
        await seat.press("9")
        await seat.sees("ops")
        await seat.press(key)
        await seat.sees(words)


async def test_changes_at_run_time_are_taken_back(tmp_path: Path) -> None:
    """All of them, after a question."""
    async with seated(tmp_path) as seat:
        await seat.press("9")
        await seat.asks_and_gets("z", "Take back everything", "ClearOverlay")
        await seat.until(lambda: "3 changes taken back (snapshot 9)" in seat.said, "the result")


@pytest.mark.parametrize(
    ("view", "key", "needed"),
    [
        ("2", "x", "operator"),
        ("2", "w", "operator"),
        ("3", "x", "operator"),
        ("6", "s", "operator"),
        ("7", "d", "operator"),
        ("9", "r", "operator"),
        ("9", "b", "admin"),
        ("9", "n", "admin"),
    ],
)
async def test_a_viewer_is_told_why_not(tmp_path: Path, view: str, key: str, needed: str) -> None:
    """Without a question, and without a call."""
    scene = small()
    scene.role = access_pb2.ROLE_VIEWER
    async with seated(tmp_path, scene) as seat:
        await seat.press(view)
        await seat.sees("viewer")
        await seat.until(lambda: seat.row is not None, "rows")
        before = [name for name, _ in seat.admin.calls if name not in ("WhoAmI", "Watch")]
        await seat.press(key)
        await seat.until(lambda: f"this takes the role {needed}; the-test is viewer" in seat.said, "why not")
        assert len(seat.app.screen_stack) == 1
        assert [name for name, _ in seat.admin.calls if name not in ("WhoAmI", "Watch")] == before


async def test_a_refused_change_says_why(tmp_path: Path) -> None:
    """In the control plane's words."""
    scene = small()
    scene.refusals["SetProviderState"] = (grpc.StatusCode.ABORTED, "the etag is out of date")
    async with seated(tmp_path, scene) as seat:
        await seat.press("2")
        await seat.asks_and_gets("x", "Disable anthropic", "SetProviderState")
        await seat.until(lambda: "the etag is out of date" in seat.said, "why")


async def test_an_older_control_plane_is_said_to_be_one(tmp_path: Path) -> None:
    """Instead of an empty screen that looks like a quiet relay."""
    scene = small()
    scene.refusals["Watch"] = (grpc.StatusCode.UNIMPLEMENTED, "")
    scene.refusals["GetConfig"] = (grpc.StatusCode.UNIMPLEMENTED, "")
    async with seated(tmp_path, scene) as seat:
        await seat.sees("✗ refused", "figures: this control plane does not offer it: update it")
        await seat.press("6")
        await seat.sees("this control plane does not offer it: update it")


async def test_it_comes_back_by_itself(tmp_path: Path) -> None:
    """The last figures stay, are called old, and are renewed when the control plane is back."""
    async with seated(tmp_path) as seat:
        await seat.sees("12,345 ever")
        scene = seat.admin.scene
    # the fake is gone, and the dashboard with it: the whole of it again, with a control plane that goes first
    from support.fake_admin import serving

    admin = FakeAdmin(scene)
    async with serving(admin, tmp_path / "other.sock") as door:
        app = Dashboard(lambda: connect_async(door), door.target)
        run = app.run_test(size=(100, 30))
        pilot = await run.__aenter__()
        seat = Seat(app, pilot, admin)
        await seat.sees("● live", "12,345 ever")
    try:
        await seat.sees("✗ away, again in", "the figures below are the last ones known", "12,345 ever")
        scene.stats.total.requests = 12_400
        async with serving(admin, tmp_path / "other.sock"):
            await seat.sees("● live", "12,400 ever")
            await seat.until(lambda: "the last ones known" not in seat.text, "the notice is taken away")
    finally:
        await run.__aexit__(None, None, None)


async def test_rows_are_found_by_words(tmp_path: Path) -> None:
    """Among a hundred providers."""
    scene = small()
    scene.providers += [provider(f"more-{number:02}") for number in range(60)]
    async with seated(tmp_path, scene) as seat:
        await seat.press("2", "/")
        await seat.types("more-57")
        await seat.until(lambda: seat.row == "more-57", "one row")
        await seat.press("/")
        await seat.types("nonsense")
        await seat.sees("no provider fits")


async def test_the_mouse_does_what_keys_do(tmp_path: Path) -> None:
    """A tab, a row, and the row once more."""
    async with seated(tmp_path) as seat:
        await seat.sees("● live")
        await seat.pilot.click("#tabs", offset=(seat.text.splitlines()[1].index("providers"), 0))
        await seat.until(lambda: seat.app.view.id == "providers", "the view")
        await seat.sees("zai")
        await seat.pilot.click("#provider-rows", offset=(3, 2))
        await seat.until(lambda: seat.row == "zai", "the row")
        await seat.pilot.click("#provider-rows", offset=(3, 2))
        await seat.until(lambda: isinstance(seat.app.screen, Read), "its details")
        await seat.sees("https://zai.example")


async def test_the_overview_leads_to_providers_and_events(tmp_path: Path) -> None:
    """Enter on a provider there is enter on the view of providers."""
    async with seated(tmp_path) as seat:
        await seat.sees("zai")
        await seat.press("down", "enter")
        await seat.until(lambda: seat.app.view.id == "providers" and seat.row == "zai", "the provider")


async def test_help_names_every_key_of_the_view(tmp_path: Path) -> None:
    """Those that do not fit into the line at the bottom, too."""
    async with seated(tmp_path, size=(80, 24)) as seat:
        await seat.press("2")
        await seat.press("question_mark")
        await seat.sees("In providers", "reset circuit", "priority", "probe")
        await seat.press("escape")
        assert len(seat.app.screen_stack) == 1


async def test_quitting_asks_about_the_relay_only_if_it_ends_with_us(tmp_path: Path) -> None:
    """`ccr tui` just ends; behind `ccr serve --tui` there is something to lose."""
    async with seated(tmp_path) as seat:
        await seat.press("q")
        await seat.until(lambda: seat.app.return_value == 0, "it ends")
    async with seated(tmp_path, ends_relay=True) as seat:
        await seat.press("q")
        await seat.sees("End the relay, too?", "3 open requests are finished first")
        await seat.press("n")
        assert seat.app.return_value is None
        await seat.press("q", "y")
        await seat.until(lambda: seat.app.return_value == 0, "it ends")


async def test_names_from_outside_cannot_draw(tmp_path: Path) -> None:
    """A session's name is whatever a client says: escape sequences and markup stay words."""
    scene = small()
    scene.sessions[0].session = "\x1b[31m[b]x"
    scene.events.append(
        events_pb2.Event(id=4, at=at(1), kind=events_pb2.EVENT_KIND_DRIFT, action="[blink]", message="\x1b]0;title\x07")
    )
    async with seated(tmp_path, scene) as seat:
        await seat.press("4")
        await seat.sees("·[31m[b]x")
        await seat.press("8")
        await seat.sees("[blink]")
        assert "\x1b" not in seat.text
