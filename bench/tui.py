"""How fast the dashboard is under load: from a key to the bytes for the terminal, and how much of a core it takes.

    .venv/bin/python bench/tui.py [--seconds 10] [--size 200x60]

A process of its own plays the control plane: 100 providers, 1,000 keys, 5,000 sessions (the stream tells 200), 1,000
records a second, a message every 100 ms, as fast as the contract allows.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
os.environ["GRPC_VERBOSITY"] = "NONE"

from ccr_bench import screens
from ccr_client import connect_async
from ccr_client.door import Door
from ccr_tui.shell.app import Dashboard
from ccr_tui.shell.rows import RowList
from support.fake_admin import FakeAdmin, serving
from support.scenes import large
from textual.drivers.headless_driver import HeadlessDriver
from textual.events import Key

EVERY_S = 0.1


class Recorder(HeadlessDriver):
    """A terminal that notes when something is drawn."""

    written: list[tuple[float, int]] = []
    is_headless = False  # else nothing is drawn

    def write(self, data: str) -> None:
        self.written.append((time.perf_counter(), len(data)))


async def play(socket: str) -> None:
    """The control plane, until killed."""
    admin = FakeAdmin(large())
    async with serving(admin, Path(socket)):
        print("ready", flush=True)
        await screens.move(admin, EVERY_S)


async def measure(socket: str, seconds: float, size: tuple[int, int]) -> None:
    """Press keys in every view, and print."""
    door = Door(f"unix:{socket}")
    app = Dashboard(lambda: connect_async(door), door.target)
    app.driver_class = Recorder
    running = asyncio.create_task(app.run_async(size=size, mouse=False))
    while not app.world.providers:
        await asyncio.sleep(0.05)
    say = sys.__stdout__.write  # Textual takes what is printed
    say(f"{'view':<12}{'keys':>6}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'own p99':>9}{'CPU':>7}{'kB/s':>8}\n")
    for digit, name in enumerate(("overview", "providers", "keys", "sessions", "live"), 1):
        app.post_message(Key(str(digit), str(digit)))
        await asyncio.sleep(1.5)
        for _ in range(5 if name == "sessions" else 0):  # the stream tells 200; the others are asked for
            app.post_message(Key("m", "m"))
            await asyncio.sleep(1)
        rows = app.view.query_one(RowList) if name != "overview" else app.view.query_one("#overview-providers", RowList)
        while not rows.listing.keys:  # before its stream says something there is nothing to move on
            await asyncio.sleep(0.05)
        took, own, cpu_s, began_s, octets = [], [], time.process_time(), time.perf_counter(), len(Recorder.written)
        while time.perf_counter() - began_s < seconds:
            at_end = rows.cursor >= len(rows.listing.keys) - 1
            key, before = ("home" if at_end else "down"), rows.cursor
            start_s, start_cpu_s, written = time.perf_counter(), time.process_time(), len(Recorder.written)
            app.post_message(Key(key, None))
            while rows.cursor == before or len(Recorder.written) == written:
                await asyncio.sleep(0.0005)
                if time.perf_counter() - start_s > 2:
                    break
            took.append((time.perf_counter() - start_s) * 1000)
            own.append((time.process_time() - start_cpu_s) * 1000)  # what it would be on an idle machine
            await asyncio.sleep(0.037)
        lasted_s = time.perf_counter() - began_s
        sent = sum(count for _, count in Recorder.written[octets:])
        took.sort()
        own.sort()
        say(
            f"{name:<12}{len(took):>6}{statistics.median(took):>9.1f}{took[int(len(took) * 0.99)]:>9.1f}{took[-1]:>9.1f}{own[int(len(own) * 0.99)]:>9.1f}"
            f"{(time.process_time() - cpu_s) / lasted_s:>7.0%}{sent / lasted_s / 1000:>8.1f}\n"
        )
    app.exit(0)
    await running


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--size", default="200x60")
    parser.add_argument("--play", metavar="SOCKET", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        asyncio.run(play(options.play))
        return
    width, _, height = options.size.partition("x")
    with tempfile.TemporaryDirectory() as directory:
        socket = f"{directory}/admin.sock"
        with screens.player([__file__, "--play", socket]):
            asyncio.run(measure(socket, options.seconds, (int(width), int(height))))


if __name__ == "__main__":
    main()
