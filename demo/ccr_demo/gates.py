"""Lock-step streams: each waits at its gate, and a test lets one event after another go."""

import asyncio

STEP_LIMIT_S = 30.0  # for a release to find a stream that waits


class Gates:
    """Lets lock-step streams go on, one event for each call of `release`."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Queue[asyncio.Future[int]]] = {}

    def _queue(self, gate: str) -> asyncio.Queue[asyncio.Future[int]]:
        return self._waiting.setdefault(gate, asyncio.Queue(maxsize=10_000))

    async def release(self, gate: str) -> int:
        """Lets the next event of the stream at `gate` go; returns how many it has sent then."""
        sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue(gate).put_nowait(sent)
        async with asyncio.timeout(STEP_LIMIT_S):
            return await sent

    async def wait(self, gate: str) -> asyncio.Future[int]:
        """Waits for a release; ended by the client's leaving. The result is set when the event is sent."""
        while True:
            sent = await self._queue(gate).get()
            if not sent.done():  # whoever wanted it may have given up
                return sent
