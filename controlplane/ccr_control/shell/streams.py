"""Calls that stay open for as long as the server lives: they have to end first, or stopping takes its whole grace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class OpenStreams:
    """All long calls, ended at once by `stop`."""

    def __init__(self) -> None:
        self._limits: set[asyncio.Timeout] = set()
        self._is_stopping = False

    def stop(self) -> None:
        """End the blocks of `until_stopping`, the present and the future ones."""
        self._is_stopping = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            limit.reschedule(now)

    @asynccontextmanager
    async def until_stopping(self) -> AsyncIterator[None]:
        """Run the block, but leave it quietly when the server stops."""
        try:
            async with asyncio.timeout(0 if self._is_stopping else None) as limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            if not self._is_stopping:  # one of the block's own
                raise
