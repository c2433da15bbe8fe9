"""How busy the web page keeps a browser under load: the share of the main thread in each view, and how long a key press takes to be seen.

    .venv/bin/python bench/web.py [--seconds 8] [--presses 60]

A process of its own plays the control plane: 100 providers, 1,000 keys, 5,000 sessions (the stream tells 200), 1,000 records a second,
a message every 250 ms or as seldom as the page asks for. The main thread's share is its CPU time, and so is what a key press takes of it, so that they mean the same on
a busy machine; keys are pressed as a person's are, at every phase of the stream. Needs Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from ccr_bench import screens
from ccr_rpc.v1 import (
    dashboard_pb2,
    keys_pb2,
    ledger_pb2,
    ledger_pb2_grpc,
    stats_pb2,
)
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from support.browser import browser
from support.fake_admin import FakeAdmin
from support.fake_page import page_of
from support.scenes import figures, large

EVERY_S = 0.25
POINT_S = 10  # between two points of budgets
VIEWS = {"overview": "o", "providers": "p", "keys": "k", "sessions": "s", "requests": "r"}
AWAY = "n"  # the key of another view
SERIES = {
    stats_pb2.WINDOW_1M: (60, 1),
    stats_pb2.WINDOW_15M: (90, 10),
    stats_pb2.WINDOW_1H: (120, 30),
    stats_pb2.WINDOW_24H: (96, 900),
}
"""Points of a window, and their length in seconds."""
WATCH_KEYS = """() => {
    let newest = 0;
    const look = () => document.querySelector("nav [aria-current]")?.href + document.documentElement.dataset.theme;
    addEventListener("keydown", (event) => { // from the key to the picture that shows what it did, as the page sees it
        const [start, before] = [event.timeStamp, look()];
        const number = (newest += 1);
        const seen = () => performance.measure(`key ${number}`, { start, end: performance.now() });
        const frame = () => look() !== before ? setTimeout(seen) : number === newest && requestAnimationFrame(frame);
        requestAnimationFrame(frame);
    }, { capture: true });
}"""


async def play() -> None:
    """The control plane, until killed."""
    admin = Large()
    async with page_of(admin, ledger_pb2_grpc.add_UsageLedgerServiceServicer_to_server) as url:
        print(url, flush=True)
        await screens.move(admin, EVERY_S)


class Large(FakeAdmin, ledger_pb2_grpc.UsageLedgerServiceServicer):
    """With what the page asks for besides its stream."""

    def __init__(self) -> None:
        super().__init__(large())
        names = [one.name for one in self.scene.providers]
        lines = [stats_pb2.NamedFigures(name=name, figures=figures(1000)) for name in names[:12]]
        self.breakdown = stats_pb2.GetBreakdownResponse(lines=lines, total=figures(100_000))

    async def Watch(self, request: dashboard_pb2.WatchRequest, context: Any) -> AsyncIterator[Any]:
        """No oftener than asked for; with an hour of budgets after the first message, and a point more every ten seconds."""
        interval_s = request.interval.ToTimedelta().total_seconds()
        now_s = int(time.time()) // POINT_S * POINT_S
        told_s = 0
        async for message in super().Watch(request, context):
            yield message
            if request.budgets and not told_s:
                for begin in range(0, len(self.scene.scopes), 100):
                    yield self._budgets(begin, begin + 100, now_s - 3600, now_s)
                told_s = now_s
            elif request.budgets and time.time() - told_s >= POINT_S:
                yield self._budgets(0, len(self.scene.scopes), told_s, told_s + POINT_S)
                told_s += POINT_S
            await asyncio.sleep(interval_s - time.monotonic() % interval_s)

    def _budgets(self, begin: int, end: int, after_s: int, to_s: int) -> dashboard_pb2.WatchResponse:
        times = range(after_s + POINT_S, to_s + 1, POINT_S)
        history = keys_pb2.BudgetHistory(at=[Timestamp(seconds=one) for one in times])
        for number, one in enumerate(self.scene.scopes[begin:end]):
            used = [(at_s // POINT_S * 7 + number) % 1000 for at_s in times]
            for kind in (keys_pb2.BUDGET_KIND_REQUESTS, keys_pb2.BUDGET_KIND_INPUT_TOKENS):
                history.lines.add(
                    provider=one.provider, scope=one.scope, kind=kind, used_permille=used, leased_permille=used
                )
        return dashboard_pb2.WatchResponse(budgets=history)

    async def GetSeries(self, request: Any, context: Any) -> Any:
        """As many points as the control plane has."""
        count, span_s = SERIES.get(request.window, SERIES[stats_pb2.WINDOW_1M])
        now_s = int(time.time()) // span_s * span_s
        return stats_pb2.GetSeriesResponse(points=[_point(now_s - span_s * n, span_s) for n in range(count)][::-1])

    async def GetBreakdown(self, request: Any, context: Any) -> Any:
        """Of a dozen providers."""
        return self.breakdown

    async def GetCostReport(self, request: Any, context: Any) -> Any:
        """Of nothing."""
        return ledger_pb2.GetCostReportResponse()

    async def ListClientBudgets(self, request: Any, context: Any) -> Any:
        """None."""
        return ledger_pb2.ListClientBudgetsResponse()

    async def ListUnknowns(self, request: Any, context: Any) -> Any:
        """None."""
        return stats_pb2.ListUnknownsResponse()


def _point(at_s: int, span_s: int) -> stats_pb2.SeriesPoint:
    some = at_s // span_s % 17
    return stats_pb2.SeriesPoint(
        at=Timestamp(seconds=at_s),
        span=Duration(seconds=span_s),
        requests=(1000 + 10 * some) * span_s,
        failed=some,
        first_byte=stats_pb2.Percentiles(p50_us=400_000 + some * 5000, p90_us=900_000, p99_us=2_000_000),
        total=stats_pb2.Percentiles(p50_us=4_000_000, p90_us=9_000_000, p99_us=20_000_000),
        cost_micro_usd=some * 1_000_000,
    )


async def watch(url: str, seconds: float, presses: int) -> None:
    """Look at each view for so long, and press keys in it."""
    async with browser() as chromium, chromium.page(allowed=("",)) as page:
        await page.goto(f"{url}/#token=bench")
        await page.sees("[data-link=live]")
        print(
            f"{os.getloadavg()[0]:.1f} processes want one of {os.cpu_count()} processors; beyond that times say little, CPU still does"
        )
        print(
            f"{'view':<12}{'main thread':>12}{'presses':>9}{'key to paint: p50':>19}{'p99':>6}{'worst':>7}{'CPU: p50':>12}{'p99':>6}{'worst':>7}"
        )
        is_watched = False
        for view, key in VIEWS.items():
            await page.press(key)
            await page.sees("main h1")
            await asyncio.sleep(2)
            busy_s, began_s = await page.do("busy"), time.monotonic()
            await asyncio.sleep(seconds)
            share = (await page.do("busy") - busy_s) / (time.monotonic() - began_s)
            if not is_watched:
                await page.evaluate(WATCH_KEYS)
                is_watched = True
            await page.do("trace")
            pressed = 0
            for number in range(presses):  # another view, this one again, and now and then what makes all of it anew
                for one in (AWAY, key) if number % 4 else ("t",):
                    await page.press(one)
                    pressed += 1
                    await asyncio.sleep(0.13)  # more than a message's interval divides: every phase of it is met
            await asyncio.sleep(0.5)
            found = await page.do("traced", "key ")
            took_ms, cpu_ms = (sorted(column) for column in zip(*found, strict=True))
            print(f"{view:<12}{share:>11.1%}{f'{len(found)}/{pressed}':>10}{spread(took_ms, 16)}{spread(cpu_ms, 10)}")


def spread(ms: list[float], width: int) -> str:
    """Median, 99th percentile and greatest of what is sorted."""
    p99 = ms[min(len(ms) - 1, int(len(ms) * 0.99))]
    return f"{ms[len(ms) // 2]:>{width}.0f} ms{p99:>6.0f}{ms[-1]:>7.0f}"


def main() -> None:
    """Measure; or, for itself, play the control plane."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--presses", type=int, default=60)
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        asyncio.run(play())
        return
    with screens.player([__file__, "--play"]) as url:
        asyncio.run(watch(url, options.seconds, options.presses))


if __name__ == "__main__":
    main()
