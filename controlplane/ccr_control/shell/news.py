"""Waking whoever follows something: many wait, one tells, and nobody misses anything or waits for anybody."""

from __future__ import annotations

import asyncio


class News:
    """Something that happens again and again. All methods are for the event loop."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        """It happened: all who wait go on."""
        news, self._next = self._next, asyncio.Event()
        news.set()

    async def wait(self) -> None:
        """Until it happens next. The caller limits the wait, or is ended with its call."""
        await self._next.wait()
