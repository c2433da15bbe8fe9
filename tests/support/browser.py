"""A real Chromium, driven through playwright-core (tests/web/driver.mjs): one process for a test file.

async with browser() as chromium, chromium.page(stage.web) as page:
    await page.click("role=button[name='Disable zai']")

Selectors are playwright's. What the page writes to the console as an error, an exception in it and every violation of its policy is
remembered, and fails the test when the page is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "web"
CACHE = ROOT / ".cache"
ANSWER_WITHIN_S = 40.0
CHROMIUM = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome")


def _need(reason: str) -> Any:
    if os.environ.get("CCR_REQUIRE_CHROMIUM"):
        pytest.fail(reason)
    pytest.skip(reason)


def chromium_path() -> str:
    """The browser of this machine; skips the test if there is none."""
    for name in (os.environ.get("CCR_CHROMIUM", ""), *CHROMIUM):
        if name and (found := shutil.which(name)):
            return found
    _need("no Chromium on this machine: apt-get install chromium, or set CCR_CHROMIUM")
    raise AssertionError


def driver_folder() -> Path:
    """A folder with what tests/web/package-lock.json names, installed once."""
    sys.path.insert(0, str(ROOT / "tools"))
    import build_web

    lock = (HERE / "package-lock.json").read_bytes()
    folder = CACHE / "web-tests" / hashlib.sha256(lock).hexdigest()[:16]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            fresh = Path(scratch) / "driver"
            fresh.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, fresh)
            try:
                build_web.install(fresh)
            except build_web.CannotBuild as error:
                _need(f"playwright-core cannot be installed: {error}")
            with contextlib.suppress(OSError):  # another test run was quicker
                fresh.rename(folder)
    return folder


@dataclass
class Page:
    """One tab."""

    browser: Browser
    number: int
    errors: list[str] = field(default_factory=list)

    async def do(self, act: str, *arguments: Any) -> Any:
        """Have the driver do something to this page."""
        return await self.browser.ask(act, self.number, *arguments)

    async def goto(self, url: str) -> None:
        """Load a page; one that differs only behind the `#` is only a step within it."""
        await self.do("goto", url)

    async def click(self, selector: str) -> None:
        """Click on something, once it can be clicked."""
        await self.do("click", selector)

    async def fill(self, selector: str, text: str) -> None:
        """Write into a field."""
        await self.do("fill", selector, text)

    async def press(self, key: str) -> None:
        """Press a key."""
        await self.do("press", key)

    async def text(self, selector: str) -> str:
        """The text of the first thing that fits, once there is one."""
        return str(await self.do("text", selector))

    async def count(self, selector: str) -> int:
        """How many things fit now."""
        return int(await self.do("count", selector))

    async def sees(self, selector: str) -> None:
        """Wait until it is there and visible."""
        await self.do("sees", selector)

    async def until(self, script: str, argument: Any = None) -> Any:
        """Wait until a function in the page, given as text, returns something true. Returns that."""
        return await self.do("until", script, argument)

    async def evaluate(self, script: str, argument: Any = None) -> Any:
        """What a function in the page, given as text, returns."""
        return await self.do("evaluate", script, argument)

    async def findings(self, *rules: str) -> list[str]:
        """What axe calls serious or critical; only by these of its rules, if any are given."""
        return list(await self.do("axe", list(rules) or None))

    async def later(self, ms: int) -> None:
        """Go on as if so much time had passed, in milliseconds."""
        await self.do("later", ms)

    async def screenshot(self, path: Path) -> None:
        """A picture of what is in sight."""
        await self.do("screenshot", str(path))

    async def reload(self) -> None:
        """As by F5."""
        await self.do("reload")


class Browser:
    """A running Chromium."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._pages: dict[int, Page] = {}

    async def ask(self, act: str, *arguments: Any) -> Any:
        """Have the driver do something. Raises AssertionError if it cannot."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([number, act, *arguments]).encode() + b"\n")
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await answer

    async def read(self) -> None:
        """Take the driver's answers until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            number, is_good, value = json.loads(line)
            if number == 0:  # it tells of a page
                page, words = value
                if page in self._pages:
                    self._pages[page].errors.append(words)
            elif not (answer := self._waiting.pop(number)).done():
                if is_good:
                    answer.set_result(value)
                else:
                    answer.set_exception(AssertionError(value))

    @contextlib.asynccontextmanager
    async def page(self, url: str = "", *, allowed: tuple[str, ...] = (), **options: Any) -> AsyncIterator[Page]:
        """A tab of its own, without the storage of others; `options` are playwright's of a context.

        Errors that hold one of `allowed` are expected.
        """
        page = Page(self, next(self._numbers))
        self._pages[page.number] = page
        await self.ask("open", page.number, options)
        try:
            if url:
                await page.goto(url)
            yield page
            unexpected = [one for one in page.errors if not any(words in one for words in allowed)]
            assert unexpected == []
        finally:
            await self.ask("close", page.number)
            del self._pages[page.number]


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Start Chromium; it ends with the block."""
    path = chromium_path()
    folder = await asyncio.to_thread(driver_folder)
    sys.path.insert(0, str(ROOT / "tools"))
    import build_web

    node = build_web.node_program()
    process = await asyncio.create_subprocess_exec(
        node, str(HERE / "driver.mjs"), str(folder), path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 24
    )
    started = Browser(process)
    reading = asyncio.create_task(started.read(), name="browser")
    try:
        await started.ask("start")
        yield started
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        reading.cancel()
        await asyncio.wait([reading])
