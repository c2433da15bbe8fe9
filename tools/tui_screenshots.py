"""Draws the terminal dashboard for the README: `python tools/tui_screenshots.py` writes docs/images/tui-*.svg.

What is shown is played by the tests' control plane, so that a picture is the same whoever draws it.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
os.environ["GRPC_VERBOSITY"] = "NONE"
SIZE = (110, 30)
VIEWS = {"overview": "1", "keys": "3", "live": "5"}


async def draw(directory: Path) -> None:
    """All pictures."""
    from ccr_client import connect_async  # noqa: PLC0415 - after the line about gRPC
    from ccr_tui.shell.app import Dashboard  # noqa: PLC0415
    from support.fake_admin import fake_admin  # noqa: PLC0415
    from support.scenes import gallery  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as place:
        async with fake_admin(Path(place), gallery()) as (_, door):
            app = Dashboard(lambda: connect_async(door), "unix:/run/ccr/control.sock")
            async with app.run_test(size=SIZE) as pilot:
                while app.world.me is None or app.world.config is None:
                    await pilot.pause(0.05)
                for name, key in VIEWS.items():
                    await pilot.press(key)
                    await pilot.pause(1.0)
                    save(app.export_screenshot(title="ccr tui"), directory / f"tui-{name}.svg")
                await pilot.press("enter")
                await pilot.pause(0.5)
                save(app.export_screenshot(title="ccr tui"), directory / "tui-trace.svg")


def save(svg: str, path: Path) -> None:
    """Without the fonts from elsewhere: a README must not ask a third party for anything."""
    path.write_text(re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL) + "\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    asyncio.run(draw(images))
