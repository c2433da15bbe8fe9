"""The web page in a real browser, against a real relay with real traffic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
import pytest_asyncio
from ccr_rpc.v1 import access_pb2, access_pb2_grpc, ledger_pb2, ledger_pb2_grpc, stats_pb2, stats_pb2_grpc
from support.browser import Browser, Page, browser
from support.scene import Stage, scene
from support.serving import until

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one browser for all of them

VIEWS = ("overview", "providers", "keys", "sessions", "requests", "routing", "costs", "nodes", "events", "config")
LIVE = "[data-link=live]"
AWAY = ("Failed to load resource", "net::ERR_", "Failed to fetch")
"""What Chromium writes to the console when nobody answers."""

FIGURE = """(name) => {
    const shown = document.querySelector(`[data-figure=${name}]`)?.textContent ?? "";
    return /^[0-9]+$/.test(shown) ? Number(shown) : -1;
}"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with scene(tmp_path_factory.mktemp("scene"), pace_ms=1) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as running:
        yield running


def _home(stage: Stage, view: str = "overview") -> str:
    return f"{stage.web}/#token={stage.token}" if view == "overview" else f"{stage.web}/#/{view}"


async def _opened(page: Page, stage: Stage, view: str = "overview") -> None:
    """Log in as the owner does, by address, and look at a view."""
    await page.goto(_home(stage))
    await page.sees(LIVE)
    await page.goto(f"{stage.web}/#/{view}")


async def test_figures_move_by_themselves_while_traffic_flows(stage: Stage, chromium: Browser) -> None:
    """That is what the page is for."""
    async with chromium.page() as page:
        with stage.traffic():
            await _opened(page, stage)
            before = await page.until(
                f"(name) => {{ const is = ({FIGURE})(name); return is > 0 ? is : 0; }}", "requests"
            )
            await page.until(f"([name, before]) => ({FIGURE})(name) > before + 10", ["requests", before])
            assert float(await page.text("[data-figure=rate]")) > 0
        assert "token" not in await page.evaluate("() => location.href"), "the address may be seen and shared"
        assert await page.evaluate("() => document.cookie") == ""


async def test_the_page_the_api_and_the_ledger_agree(stage: Stage, chromium: Browser) -> None:
    """Nobody has to wonder which figure is true."""
    with stage.traffic():
        sent = stage.sent
        await asyncio.to_thread(until, lambda: stage.sent > sent + 40, "some traffic")
    with grpc.insecure_channel(stage.control) as channel:
        stats = stats_pb2_grpc.StatsServiceStub(channel)
        ledger = ledger_pb2_grpc.UsageLedgerServiceStub(channel)

        def counted() -> int:
            return int(stats.GetStats(stats_pb2.GetStatsRequest()).stats.total.requests)

        await asyncio.to_thread(until, lambda: counted() == stage.sent, "every request is counted")
        total = stats.GetStats(stats_pb2.GetStatsRequest()).stats.total
        report = ledger.GetCostReport(ledger_pb2.GetCostReportRequest()).total
    assert (report.requests, report.cost_micro_usd) == (total.requests, total.cost_micro_usd)
    assert report.cost_micro_usd > 0, "the models of the scene have prices"
    async with chromium.page() as page:
        await _opened(page, stage)
        await page.until(f"(told) => ({FIGURE})('requests') === told", total.requests)
        await page.goto(f"{stage.web}/#/costs?days=1")
        await page.until(
            """([cost, requests]) => [...document.querySelectorAll("main h2")].some(
                (one) => one.textContent.startsWith(`${cost} for ${requests} requests`))""",
            [f"${report.cost_micro_usd / 1e6:.2f}", str(report.requests)],
        )


async def test_a_provider_that_is_disabled_by_click_gets_no_more_traffic(stage: Stage, chromium: Browser) -> None:
    """And gets it again when it is enabled. Both are asked once, told, and noted."""
    zai = stage.providers["zai"]
    async with chromium.page() as page:
        with stage.traffic():
            await _opened(page, stage, "providers")
            await page.click("role=button[name='Disable zai']")
            await page.sees("role=dialog")
            await page.click("role=dialog >> role=button[name='Disable']")
            await page.sees("text=/zai is disabled from snapshot/")
            await page.sees("tr[data-provider=zai] >> text=disabled")
            await asyncio.to_thread(_settle, zai.request_count)
            count, sent = zai.request_count(), stage.sent
            await asyncio.to_thread(until, lambda: stage.sent > sent + 40, "traffic goes on elsewhere")
            assert zai.request_count() == count

            await page.click("role=button[name='Enable zai']")
            await page.click("role=dialog >> role=button[name='Enable']")
            await page.sees("tr[data-provider=zai] >> text=healthy")
            await asyncio.to_thread(until, lambda: zai.request_count() > count, "zai is asked again")
        await page.goto(f"{stage.web}/#/events?kind=audit")
        await page.sees("tr:has-text('providers/zai') >> text=control.token")


def _settle(value: object) -> None:
    """Wait until requests that were under way when the change came have arrived."""
    assert callable(value)
    seen: list[int] = []

    def is_steady() -> bool:
        seen.append(value())
        return len(seen) > 8 and len(set(seen[-8:])) == 1

    until(is_steady, "open requests have arrived")


async def test_a_question_that_is_cancelled_changes_nothing(stage: Stage, chromium: Browser) -> None:
    """Escape is no."""
    async with chromium.page() as page:
        await _opened(page, stage, "providers")
        await page.click("role=button[name='Disable zai']")
        await page.sees("role=dialog")
        await page.press("Escape")
        await page.until("() => !document.querySelector('dialog[open]')")
        assert await page.count("tr[data-provider=zai] >> text=healthy") == 1


async def test_a_changed_file_is_seen_and_compared(stage: Stage, chromium: Browser) -> None:
    """Who edits the configuration sees that it was taken, and what that changed."""
    async with chromium.page() as page:
        await _opened(page, stage, "config")
        await page.sees("role=button[name='Reload']")
        stage.config.write_text(stage.config.read_text().replace("interval: 60s", "interval: 90s"))
        await page.click("role=button[name='Reload']")
        await page.click("role=dialog >> role=button[name='Reload']")
        await page.until(
            "() => [...document.querySelectorAll('button')].filter((one) => one.textContent === 'Compare…').length > 1"
        )
        await page.click("role=button[name='Compare…'] >> nth=1")
        await page.click("role=button[name=/Compare with/]")
        await page.sees("pre.diff:has-text('90s')")
        with grpc.insecure_channel(stage.control) as channel:
            request = access_pb2.CreateTokenRequest(name="reader", role=access_pb2.ROLE_VIEWER)
            viewer = access_pb2_grpc.AccessServiceStub(channel).CreateToken(request).token
        async with chromium.page() as other:
            await other.goto(f"{stage.web}/#token={viewer}")
            await other.sees(LIVE)
            await other.press("f")
            await other.click("role=button[name='Compare…'] >> nth=1")
            await other.click("role=button[name=/Compare with/]")
            await other.sees("pre.diff:has-text('90s')")
        stage.config.write_text(stage.config.read_text() + "nonsense: true\n")
        await page.sees("text=/refused: what was in force before still is/")
        stage.config.write_text(stage.config.read_text().replace("nonsense: true\n", ""))
        await page.until("() => !document.body.textContent.includes('refused: what was in force')")


async def test_a_bad_token_is_refused_and_a_good_one_lets_in(stage: Stage, chromium: Browser) -> None:
    """By hand, and it stays over a reload of the tab."""
    async with chromium.page(stage.web) as page:
        await page.fill("#token", "wrong")
        await page.click("role=button[name='Log in']")
        await page.sees("role=alert")
        assert "token" in await page.text("role=alert")
        await page.fill("#token", stage.token)
        await page.click("role=button[name='Log in']")
        await page.sees(LIVE)
        await page.reload()
        await page.sees(LIVE)
        await page.click("role=button[name='Log out']")
        await page.sees("#token")


async def test_a_viewer_cannot_change_anything_and_is_told_why(stage: Stage, chromium: Browser) -> None:
    """The button says it, and the control plane holds it whatever the page says."""
    with grpc.insecure_channel(stage.control) as channel:
        request = access_pb2.CreateTokenRequest(name="onlooker", role=access_pb2.ROLE_VIEWER)
        token = access_pb2_grpc.AccessServiceStub(channel).CreateToken(request).token
    async with chromium.page() as page:
        await page.goto(f"{stage.web}/#token={token}")
        await page.sees(LIVE)
        await page.goto(f"{stage.web}/#/providers")
        await page.sees("role=button[name='Disable zai'][disabled]")
        await page.evaluate("() => document.querySelector('[aria-label=\"Disable zai\"]').focus()")
        await page.press("Enter")
        await page.sees('text=/This takes the role operator; your token "onlooker" has the role viewer/')
        assert await page.count("dialog[open]") == 0
        body = await page.evaluate(
            """async (token) => {
                const name = new TextEncoder().encode("zai");
                const message = [10, name.length, ...name, 16, 3];
                const answer = await fetch("/ccr.rpc.v1.ProviderService/SetProviderState", {
                    method: "POST",
                    headers: { "content-type": "application/grpc-web+proto", authorization: `Bearer ${token}` },
                    body: new Uint8Array([0, 0, 0, 0, message.length, ...message]),
                });
                return await answer.text();
            }""",
            token,
        )
        assert "grpc-status: 7" in body, "PERMISSION_DENIED"
        with grpc.insecure_channel(stage.control) as channel:
            access_pb2_grpc.AccessServiceStub(channel).RevokeToken(access_pb2.RevokeTokenRequest(name="onlooker"))
        await page.sees("#token")  # the stream of a token that has ended is ended


async def test_the_page_recovers_from_a_restart_of_the_control_plane(stage: Stage, chromium: Browser) -> None:
    """It says that it waits, keeps what it has, and goes on by itself; the relay has not stopped meanwhile."""
    async with chromium.page(allowed=AWAY) as page:
        with stage.traffic():
            await _opened(page, stage)
            before = await page.until(
                f"(name) => {{ const is = ({FIGURE})(name); return is > 0 ? is : 0; }}", "requests"
            )
            await page.evaluate(
                """() => {
                    window.seen = [];
                    const state = document.querySelector("[data-link]");
                    new MutationObserver(() => window.seen.push(state.dataset.link)).observe(state, { attributes: true });
                }"""
            )
            await asyncio.to_thread(stage.restart_control)
            await page.until("() => window.seen.includes('waiting') && window.seen.at(-1) === 'live'")
            await page.until(f"([name, before]) => ({FIGURE})(name) > before", ["requests", before])


async def test_a_request_can_be_followed_and_linked_to(stage: Stage, chromium: Browser) -> None:
    """Its trace opens by click, by address, and goes by the back button."""
    async with chromium.page() as page:
        with stage.traffic():
            await _opened(page, stage, "requests")
            await page.click("tr[data-request] >> nth=2")
        await page.sees("section[aria-label=Attempts] li")
        await page.sees("section[aria-label=Decision] li")
        link = await page.evaluate("() => location.href")
        await page.reload()
        await page.sees("section[aria-label=Attempts] li")
        assert link == await page.evaluate("() => location.href")
        await page.evaluate("() => history.back()")
        await page.until("() => !document.querySelector('section[aria-label=Attempts]')")
        await page.goto(f"{stage.web}/#/requests?provider=nobody")
        await page.sees("text=None of the newest fits")


async def test_a_hypothetical_request_is_explained(stage: Stage, chromium: Browser) -> None:
    """By a running node, with its order of targets."""
    async with chromium.page() as page:
        await _opened(page, stage, "routing")
        await page.fill("#model", "claude-opus-4-5")
        await page.click("role=button[name='Explain']")
        await page.sees("section[aria-label=Decision] li:has-text('claude-opus-4-5')")


async def test_the_keyboard_reaches_every_view_and_act(stage: Stage, chromium: Browser) -> None:
    """Letters go to views, Tab to links and buttons, Enter acts."""
    async with chromium.page() as page:
        await _opened(page, stage)
        for key, title in (("p", "Providers"), ("k", "Keys & budgets"), ("e", "Events"), ("o", "Overview")):
            await page.press(key)
            await page.until("(title) => document.querySelector('h1')?.textContent.startsWith(title)", title)
        await page.press("p")
        await page.sees("tr[data-provider=zai]")
        for _ in range(30):
            await page.press("Tab")
            if await page.evaluate("() => document.activeElement?.getAttribute('aria-label') === 'Disable zai'"):
                break
        await page.press("Enter")
        await page.sees("role=dialog")
        await page.press("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious_in_any_view(stage: Stage, chromium: Browser, scheme: str) -> None:
    """For people who cannot see it as we do. Dark differs in its colours only."""
    rules = ("color-contrast",) if scheme == "dark" else ()
    async with chromium.page(viewport={"width": 1300, "height": 900}, colorScheme=scheme) as page:
        with stage.traffic(clients=1):
            await _opened(page, stage)
            found = {}
            for view in VIEWS:
                await page.goto(f"{stage.web}/#/{view}")
                await page.sees("main h1")
                await page.until("() => document.querySelector('main table, main form, main pre, main .chart')")
                if findings := await page.findings(*rules):
                    found[view] = findings
            await page.goto(f"{stage.web}/#/providers/zai")
            await page.click("role=button[name='Weight…']")
            if findings := await page.findings(*rules):
                found["dialog"] = findings
        assert found == {}, json.dumps(found, indent=1)


async def test_it_fits_on_a_phone(stage: Stage, chromium: Browser) -> None:
    """Nothing but tables scrolls sideways."""
    async with chromium.page(viewport={"width": 390, "height": 800}, isMobile=True, hasTouch=True) as page:
        await _opened(page, stage)
        for view in VIEWS:
            await page.goto(f"{stage.web}/#/{view}")
            await page.sees("main h1")
            wide = await page.evaluate(
                "() => document.querySelector('main').scrollWidth - document.querySelector('main').clientWidth"
            )
            assert wide <= 0, f"{view} is {wide} px too wide"
