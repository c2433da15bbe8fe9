"""How busy the web page keeps a browser under load: the share of the main thread in each view, and how long a key press takes to be seen.

    .venv/bin/python bench/web.py [--seconds 8]

A process of its own plays the control plane: 100 providers, 1,000 keys, 5,000 sessions (the stream tells 200), 1,000 records a second,
a message every 250 ms, as the page asks for. Needs Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from aiohttp import web
from ccr_control.shell.web import LOOPBACK_NAMES, application
from ccr_control.shell.web_grpc import GrpcWeb
from ccr_control.shell.web_pages import BUILT, pages
from ccr_rpc.v1 import (
    access_pb2_grpc,
    config_pb2_grpc,
    dashboard_pb2_grpc,
    fleet_pb2_grpc,
    keys_pb2_grpc,
    providers_pb2_grpc,
    routes_pb2_grpc,
    stats_pb2_grpc,
)
from support.browser import browser
from support.fake_admin import FakeAdmin
from support.scenes import large, record

EVERY_S = 0.25
PER_MESSAGE = 250
VIEWS = ("overview", "providers", "keys", "sessions", "requests")
ADDERS = (
    access_pb2_grpc.add_AccessServiceServicer_to_server,
    config_pb2_grpc.add_ConfigServiceServicer_to_server,
    dashboard_pb2_grpc.add_DashboardServiceServicer_to_server,
    fleet_pb2_grpc.add_FleetServiceServicer_to_server,
    keys_pb2_grpc.add_KeyServiceServicer_to_server,
    providers_pb2_grpc.add_ProviderServiceServicer_to_server,
    routes_pb2_grpc.add_RouteServiceServicer_to_server,
    stats_pb2_grpc.add_StatsServiceServicer_to_server,
)


async def play() -> None:
    """The control plane, until killed."""
    admin, number, calls = FakeAdmin(large()), 0, GrpcWeb()
    for add in ADDERS:
        add(admin, calls)
    runner = web.AppRunner(application(calls, pages(BUILT), LOOPBACK_NAMES), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    while True:
        batch = [record(number + n, f"provider-{n % 100:03}") for n in range(PER_MESSAGE)]
        number += PER_MESSAGE
        admin.scene.records.extend(batch)
        admin.scene.stats.total.requests = number
        for one in admin.scene.keys:
            one.requests += 1
        for one in admin.scene.stats.providers:
            one.figures.requests += 3
        admin.changed()
        await asyncio.sleep(EVERY_S)


async def watch(url: str, seconds: float) -> None:
    """Look at each view for so long."""
    async with browser() as chromium, chromium.page(allowed=("",)) as page:
        await page.goto(f"{url}/#token=bench")
        await page.sees("[data-link=live]")
        print(f"{'view':<12}{'main thread':>12}{'key to paint':>14}")
        for view in VIEWS:
            await page.goto(f"{url}/#/{view}")
            await page.sees("main h1")
            await asyncio.sleep(2)
            busy_s, began_s = await page.do("busy"), time.monotonic()
            await asyncio.sleep(seconds)
            share = (await page.do("busy") - busy_s) / (time.monotonic() - began_s)
            worst_ms = await page.evaluate(
                """async () => {
                    let worst = 0;
                    for (let round = 0; round < 15; round += 1) {
                        const began = performance.now();
                        document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "t", bubbles: true }));
                        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
                        worst = Math.max(worst, performance.now() - began);
                        await new Promise((done) => setTimeout(done, 70));
                    }
                    return worst;
                }"""
            )
            print(f"{view:<12}{share:>11.1%}{worst_ms:>11.0f} ms")


def main() -> None:
    """Measure; or, for itself, play the control plane."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        asyncio.run(play())
        return
    command = [sys.executable, __file__, "--play"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as player:
        try:
            assert player.stdout is not None
            asyncio.run(watch(player.stdout.readline().strip(), options.seconds))
        finally:
            player.kill()


if __name__ == "__main__":
    main()
