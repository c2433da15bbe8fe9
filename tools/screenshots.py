"""Makes the pictures of the web page in the README (docs/images/web-*.png): a relay with scripted providers under load, in Chromium.

python tools/screenshots.py
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import browser  # noqa: E402 - its place is known only now
from support.scene import Stage, scene  # noqa: E402

IMAGES = ROOT / "docs" / "images"
TRAFFIC_S = 75.0  # so that charts of a minute are full
SIZE = {"width": 1200, "height": 760}


async def main() -> None:
    """Take them."""
    with tempfile.TemporaryDirectory() as folder, scene(Path(folder), pace_ms=6) as stage, stage.traffic(8, 0.25):
        stage.providers["spare"].play({"status": 529, "times": 12})
        await asyncio.sleep(TRAFFIC_S / 2)
        stage.providers["zai"].set(pace_ms=40)
        await asyncio.sleep(TRAFFIC_S / 2)
        await take(stage)


async def take(stage: Stage) -> None:
    """The page as it is now."""
    began_s = time.monotonic()
    async with browser() as chromium:
        for name, scheme, view, click in (
            ("overview", "light", "overview?span=1m", ""),
            ("requests", "dark", "requests", "tr[data-request] >> nth=3"),
            ("keys", "light", "keys", ""),
            ("providers", "dark", "providers/spare", ""),
        ):
            async with chromium.page(viewport=SIZE, colorScheme=scheme) as page:
                await page.goto(f"{stage.web}/#token={stage.token}")
                await page.sees("[data-link=live]")
                await page.goto(f"{stage.web}/#/{view}")
                await page.sees("main h1")
                await asyncio.sleep(3)  # a few figures more
                if click:
                    await page.click(click)
                    await page.sees("section[aria-label=Attempts]")
                await page.screenshot(IMAGES / f"web-{name}.png")
    print(f"pictures in {IMAGES} after {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    asyncio.run(main())
