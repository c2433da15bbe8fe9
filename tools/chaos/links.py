"""The way from one node to the control plane: a Unix socket of ours in between, which can be cut, slowed down or made to lie."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from pathlib import Path


class Link:
    """Passes bytes on between a node and the control plane. `trouble` is what it does to them from now on."""

    def __init__(self, path: Path, address_file: Path) -> None:
        self.path = path
        self._address_file = address_file  # where the control plane says where it listens
        self._trouble = ""
        self._number = 0
        self._passes = asyncio.Event()  # cleared: no byte goes either way
        self._passes.set()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen."""
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, str(self.path))

    async def close(self) -> None:
        """Hang up, and be gone."""
        if self._server is not None:
            self._server.close()
        self._hang_up()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def begin(self, trouble: str, number: int) -> None:
        """From now on: cut (no connection), hole (bytes vanish), slow, torn (ends in the middle), garbage (something else answers)."""
        self._trouble, self._number = trouble, number
        if trouble in ("cut", "torn", "garbage"):
            self._hang_up()  # torn and garbage: what comes next is
        if trouble == "hole":
            self._passes.clear()

    def heal(self) -> None:
        """All is well. What was held up goes on; what was lied to is hung up on."""
        trouble, self._trouble = self._trouble, ""
        self._passes.set()
        if trouble in ("torn", "garbage"):
            self._hang_up()

    def _hang_up(self) -> None:
        for task in tuple(self._connections):
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._trouble == "cut":
            return
        if self._trouble == "garbage":
            await self._lie(reader, writer)
            return
        address = self._address_file.read_text().strip().removeprefix("unix:")
        beyond_reader, beyond_writer = await asyncio.open_unix_connection(address)
        room = self._number if self._trouble == "torn" else -1  # bytes until it tears, of what the control plane says
        try:
            both = [
                asyncio.create_task(self._pass(reader, beyond_writer, lambda _: True)),
                asyncio.create_task(self._pass(beyond_reader, writer, _until_torn(room))),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in both:
                    one.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        finally:
            beyond_writer.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may_go_on: Callable[[int], bool]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._passes.wait()
                if self._trouble == "slow":
                    await asyncio.sleep(0.01 + self._number % 100 / 1000)
                if not may_go_on(len(data)):
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    return
                writer.write(data)
                await writer.drain()

    async def _lie(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What an unknown server may say: noise, or another protocol."""
        noise = random.Random(self._number).randbytes(self._number)
        writer.write((b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes" if self._number % 2 else b"") + noise)
        await writer.drain()
        await reader.read(1 << 16)


def _until_torn(room: int) -> Callable[[int], bool]:
    """Whether so many more bytes may pass; room below 0: always."""
    left = room

    def may_go_on(size: int) -> bool:
        nonlocal left
        left -= size
        return room < 0 or left > 0

    return may_go_on
