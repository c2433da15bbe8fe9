"""The web page before a control plane that fails, is slow, is of another version, or has more to tell than fits on a screen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from ccr_rpc.v1 import (
    access_pb2,
    dashboard_pb2,
    events_pb2,
    events_pb2_grpc,
    keys_pb2,
    records_pb2,
    records_pb2_grpc,
    stats_pb2,
)
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from support.browser import Browser, Page, browser
from support.fake_admin import FakeAdmin, at
from support.fake_page import page_of
from support.scenes import budget, record, small

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all of them

LIVE, WAITING = "[data-link=live]", "[data-link=waiting]"
RECORDS = records_pb2_grpc.add_RecordServiceServicer_to_server
PAGE = 100


class Control(FakeAdmin, events_pb2_grpc.EventServiceServicer, records_pb2_grpc.RecordServiceServicer):
    """A control plane that fails when it is told to. `parts`: what its stream tells; None: all that was asked for."""

    def __init__(self) -> None:
        super().__init__(small())
        self.version = "1.2.3"
        self.parts: tuple[str, ...] | None = None
        self.budgets: keys_pb2.BudgetHistory | None = None
        self.is_silent = False
        self._end: tuple[grpc.StatusCode, str] | None = None

    def fail(self, code: grpc.StatusCode, words: str) -> None:
        """End the streams with this, and refuse new ones."""
        self.scene.refusals["Watch"] = self._end = (code, words)
        self.changed()

    def heal(self) -> None:
        """Be well again."""
        self._end, self.is_silent = None, False
        self.scene.refusals.clear()
        self.changed()

    async def WhoAmI(self, request: Any, context: Any) -> Any:
        await self._note("WhoAmI", request, context)
        return access_pb2.WhoAmIResponse(name="the-test", role=self.scene.role, software_version=self.version)

    async def Watch(self, request: dashboard_pb2.WatchRequest, context: Any) -> AsyncIterator[Any]:
        has_budgets = False
        async for message in super().Watch(request, context):
            if self._end is not None:
                await context.abort(*self._end)
            if self.is_silent:
                continue
            if self.parts is not None:
                for one in message.DESCRIPTOR.fields:
                    if one.name not in self.parts:
                        message.ClearField(one.name)
            if request.budgets and self.budgets is not None and not has_budgets:
                message.budgets.CopyFrom(self.budgets)
                has_budgets = True
            yield message

    async def ListEvents(self, request: Any, context: Any) -> Any:
        await self._note("ListEvents", request, context)
        newest = [one for one in self.scene.events[::-1] if not request.page_token or one.id < int(request.page_token)]
        page = newest[:PAGE]
        token = str(page[-1].id) if len(newest) > PAGE else ""
        return events_pb2.ListEventsResponse(events=page, next_page_token=token)

    async def ListRecords(self, request: Any, context: Any) -> Any:
        await self._note("ListRecords", request, context)
        older = [record(10_000 + n) for n in range(150)]
        return records_pb2.ListRecordsResponse(records=[*self.scene.records[::-1], *older])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as running:
        yield running


@contextlib.asynccontextmanager
async def _looking(chromium: Browser, control: Control, view: str = "overview", **options: Any) -> AsyncIterator[Page]:
    """A page on it, live, that shows a view."""
    async with page_of(control, RECORDS) as url, chromium.page(**options) as page:
        await page.goto(f"{url}/#token=t")
        if not control.is_silent and not control.scene.refusals:
            await page.sees(LIVE)
        await page.goto(f"{url}/#/{view}")
        yield page


async def test_a_stream_that_fails_is_told_with_its_reason_and_tried_again(chromium: Browser) -> None:
    """What was shown stays, marked as old; nothing has to be done but what the reason asks for."""
    control = Control()
    async with _looking(chromium, control, "providers") as page:
        await page.sees("tr[data-provider=zai]")
        for code, words, told in (
            (grpc.StatusCode.UNAVAILABLE, "the store is busy", "the store is busy"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many bad tokens: wait a minute", "wait a minute"),
            (grpc.StatusCode.UNIMPLEMENTED, "", "does not know how to do that: update it"),
        ):
            control.fail(code, words)
            await page.sees(f"{WAITING} >> text=/{told}.*Next try/")
            await page.sees("main.stale tr[data-provider=zai]")
            control.heal()
            await page.evaluate(f"() => document.querySelector('{WAITING} button')?.click()")  # unless it has by itself
            await page.sees(LIVE)
            await page.until("() => !document.querySelector('main.stale')")


async def test_a_control_plane_that_is_away_from_the_first_is_explained(chromium: Browser) -> None:
    """Whoever opens the page while it starts learns what to look at."""
    control = Control()
    control.scene.refusals["Watch"] = (grpc.StatusCode.UNAVAILABLE, "it starts")
    async with _looking(chromium, control) as page:
        await page.sees("main >> text=/it starts.*ccr status/")
        control.heal()
        await page.sees(LIVE)


async def test_a_token_that_was_taken_back_asks_for_another(chromium: Browser) -> None:
    """At once, with the reason, and the new one goes on where it was."""
    control = Control()
    async with _looking(chromium, control, "nodes") as page:
        await page.sees("main h1")
        control.scene.refusals["WhoAmI"] = (grpc.StatusCode.UNAUTHENTICATED, "bad or missing token")
        control.fail(grpc.StatusCode.UNAUTHENTICATED, "bad or missing token")
        await page.sees("#token")
        assert "revoked" in await page.text("role=alert")
        control.heal()
        await page.fill("#token", "another")
        await page.press("Enter")
        await page.sees("h1:has-text('Nodes')")


async def test_one_that_is_slow_is_said_to_be_slow(chromium: Browser) -> None:
    """A page that only spins is closed by people who should wait."""
    control = Control()
    control.is_silent = True
    async with _looking(chromium, control) as page:
        await page.sees("text=The first figures arrive within a moment")
        await page.later(6000)
        await page.sees("main >> text=is slow to answer")
        assert "for" in await page.text("[data-link=connecting]")
        control.heal()
        await page.sees(LIVE)


async def test_parts_that_another_version_does_not_tell_are_named(chromium: Browser) -> None:
    """And what it tells is shown, also names and values that this page does not know."""
    control = Control()
    control.parts = ("at", "stats", "events", "sessions")
    control.scene.events[-1].kind = 42  # type: ignore[assignment] # of a later version
    control.scene.events[-1].MergeFromString(b"\xfa\x3f\x03new")  # field 1023
    async with _looking(chromium, control, "events") as page:
        await page.sees("main tr:has-text('unknown')")
        await page.later(10_000)
        for view, what in (
            ("nodes", "nodes"),
            ("providers", "providers"),
            ("keys", "keys"),
            ("config", "configuration"),
        ):
            await page.press({"nodes": "n", "providers": "p", "keys": "k", "config": "f"}[view])
            await page.sees(f"main >> text=/tells nothing about .*{what}/")
        await page.press("o")
        await page.sees("main >> text=This control plane does not know how to do that: update it.")


async def test_a_relay_that_was_updated_asks_to_reload_the_page(chromium: Browser) -> None:
    """Or an old page would talk to a new control plane for weeks."""
    control = Control()
    async with _looking(chromium, control) as page:
        control.version = "1.3.0"
        control.fail(grpc.StatusCode.UNAVAILABLE, "restarts")
        await page.sees(WAITING)
        control.heal()
        await page.sees("text=The relay is now version 1.3.0")
        await page.click("role=button[name='Reload the page']")
        await page.sees(LIVE)
        await page.until("() => !document.querySelector('.banner')")


def _event(number: int) -> events_pb2.Event:
    kind = events_pb2.EVENT_KIND_AUDIT
    return events_pb2.Event(id=number, at=at(), kind=kind, action="key.update", resource=f"keys/zai/k-{number}")


TOP_ROW = """() => {
    const edge = document.querySelector("main").getBoundingClientRect().top;
    const row = [...document.querySelectorAll("[data-row]")].find((one) => one.getBoundingClientRect().top >= edge);
    return [row.dataset.row, Math.round(row.getBoundingClientRect().top)];
}"""


async def test_older_events_come_by_scrolling_and_new_ones_do_not_push_them_away(chromium: Browser) -> None:
    """Who reads what happened last night is not interrupted by what happens now."""
    control = Control()
    control.scene.events = [_event(number) for number in range(1, 251)]
    async with _looking(chromium, control, "events") as page:
        await page.sees("tr[data-row='250']")
        for oldest in (151, 51, 1):
            await page.until(
                """(id) => {
                    const main = document.querySelector("main");
                    main.scrollTop = main.scrollHeight;
                    return document.querySelector(`[data-row='${id}']`) !== null;
                }""",
                oldest,
            )
        assert await page.count("[data-row]") == 250
        await page.evaluate("() => { document.querySelector('main').scrollTop = 3000; }")
        before = await page.evaluate(TOP_ROW)
        control.scene.events.extend(_event(number) for number in range(251, 254))
        control.changed()
        await page.sees("role=button[name='3 newer ↑']")
        assert await page.evaluate(TOP_ROW) == before
        await page.click("role=button[name='3 newer ↑']")
        await page.until("() => document.querySelector('main').scrollTop === 0")
        await page.until("() => !document.querySelector('.newer')")


async def test_who_reads_older_requests_is_not_pushed_away_by_new_ones(chromium: Browser) -> None:
    """New ones wait, are counted, and come when asked for; what the control plane keeps besides is fetched."""
    control = Control()
    control.scene.records = [record(number) for number in range(120)]
    async with _looking(chromium, control, "requests") as page:
        await page.sees("tr[data-request=req_000119]")
        box = "document.querySelector('.windowed')"
        await page.evaluate(f"() => {{ {box}.scrollTop = 1500; }}")
        await page.until(f"() => {box}.scrollTop === 1500 && document.querySelector('[data-request=req_000060]')")
        control.scene.records.extend(record(number) for number in range(120, 125))
        control.changed()
        await page.sees("role=button[name='5 newer ↑']")
        assert await page.evaluate(f"() => {box}.scrollTop") == 1500
        await page.until(
            f"""() => {{
                {box}.scrollTop = {box}.scrollHeight;
                return document.querySelector('[data-request=req_010149]') !== null;
            }}"""
        )
        await page.click("role=button[name='5 newer ↑']")
        await page.sees("tr[data-request=req_000124]")
        assert await page.evaluate(f"() => {box}.scrollTop") == 0


async def test_budgets_burn_down_from_before_the_page_was_opened(chromium: Browser) -> None:
    """And requests in flight are shown by provider."""
    control = Control()
    one = control.scene.scopes[0]
    now_s = int(time.time())
    control.budgets = keys_pb2.BudgetHistory(
        at=[Timestamp(seconds=now_s - 10 * (59 - n)) for n in range(60)],
        lines=[
            keys_pb2.BudgetLine(
                provider=one.provider,
                scope=one.scope,
                model_class=one.model_class,
                kind=keys_pb2.BUDGET_KIND_REQUESTS,
                used_permille=[10 * n for n in range(60)],
                leased_permille=[500] * 60,
            )
        ],
    )
    control.scene.stats.providers[0].figures.open_requests = 17
    provider = control.scene.stats.providers[0].provider
    async with _looking(chromium, control, "keys") as page:
        await page.sees(f"article[aria-label^='{one.provider}/{one.scope}'] figure")
        assert "requests left: 41 % at least" in await page.text("figure figcaption")
        assert (await page.evaluate("() => document.querySelector('figure .line').getAttribute('d')")).count("L") == 59
        await page.press("p")
        assert await page.text(f"tr[data-provider={provider}] [data-figure=flight]") == "17"


async def test_charts_zoom_by_button_and_the_address_keeps_it(chromium: Browser) -> None:
    """For those who have no mouse, and for those who send a link to what they saw."""
    control = Control()
    now_s = int(time.time())
    control.scene.series = [
        stats_pb2.SeriesPoint(at=Timestamp(seconds=now_s - 30 * (60 - n)), span=Duration(seconds=30), requests=n)
        for n in range(60)
    ]
    async with _looking(chromium, control) as page:
        await page.click("role=button[name='Zoom in']")
        await page.until("() => /zoom=[0-9]+-[0-9]+/.test(location.hash)")
        await page.reload()
        await page.click("role=button[name='See all']")
        await page.until("() => !location.hash.includes('zoom')")


async def test_the_browsers_way_back_leads_through_the_views_that_keys_opened(chromium: Browser) -> None:
    """However fast they were pressed; and the address is always that of the view in sight."""
    async with _looking(chromium, Control(), "nodes") as page:
        for key in "pkp":
            await page.press(key)
        await page.sees("h1:has-text('Providers')")
        for view, title in (("keys", "Keys"), ("providers", "Providers"), ("nodes", "Nodes")):
            await page.evaluate("() => history.back()")
            await page.sees(f"h1:has-text('{title}')")
            assert await page.evaluate("() => location.hash") == f"#/{view}"


async def test_many_accounts_appear_bit_by_bit_up_to_those_that_matter(chromium: Browser) -> None:
    """The fullest ones; the others are counted."""
    control = Control()
    control.scene.scopes = [budget("zai", f"org-{n:03}", n * 100, 10_000) for n in range(80)]
    async with _looking(chromium, control, "keys") as page:
        await page.until("() => document.querySelectorAll('article').length === 60")
        assert await page.count("article[aria-label^='zai/org-079']") == 1
        assert await page.count("article[aria-label^='zai/org-019']") == 0
        await page.sees("text=The 60 fullest of 80")
