"""A control plane that does nothing but push: the snapshot in a file, again and again, each time with another credential in it.

Run by the relay's own Python, by `bench/scale`. Each line on standard input is a command: `on` pushes RATE times a second, `off` stops.
Prints `ready` when it listens, and how many snapshots were accepted, as JSON, at the end of standard input.

    .venv/bin/python bench/pusher.py SNAPSHOT SOCKET RATE
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from ccr_data.shell.store import MAGIC
from ccr_rpc.v1 import snapshot_pb2, usage_pb2

_SNAPSHOT = snapshot_pb2.WatchSnapshotsResponse.SNAPSHOT_FIELD_NUMBER << 3 | 2


def variants(wire: bytes) -> list[bytes]:
    """Two snapshots that differ in one credential."""
    found = []
    for number in range(2):
        snapshot = snapshot_pb2.Snapshot.FromString(wire)
        snapshot.providers[-1].keys[-1].secret += f"-{number}"
        found.append(snapshot.SerializeToString())
    return found


def offer(snapshot: bytes, version: int) -> bytes:
    """A message that offers it as this version: of a number that is there twice, the second counts."""
    snapshot += snapshot_pb2.Snapshot(version=version).SerializeToString()
    return bytes([_SNAPSHOT]) + _varint(len(snapshot)) + snapshot


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


class Pusher:
    """The two services that a node needs."""

    def __init__(self, wire: bytes, rate: float) -> None:
        self._variants = variants(wire)
        self._version = snapshot_pb2.Snapshot.FromString(wire).version
        self._rate = rate
        self._is_on = asyncio.Event()
        self.accepted = self.rejected = 0

    def command(self, word: str) -> None:
        """`on` or `off`."""
        if word == "on":
            self._is_on.set()
        else:
            self._is_on.clear()

    async def watch(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """WatchSnapshots."""
        await anext(requests)
        async with asyncio.TaskGroup() as tasks:
            pushing = tasks.create_task(self._push(context))
            async for message in requests:
                said = snapshot_pb2.WatchSnapshotsRequest.FromString(message).WhichOneof("message")
                self.accepted += said == "accepted"
                self.rejected += said == "rejected"
            pushing.cancel()

    async def _push(self, context: Any) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._is_on.is_set():
                await self._is_on.wait()
            due_s = loop.time() + 1 / self._rate
            self._version += 1
            await context.write(offer(self._variants[self._version % 2], self._version))
            await asyncio.sleep(max(0.0, due_s - loop.time()))

    async def report(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """ReportUsage: every batch is acknowledged."""
        async for message in requests:
            request = usage_pb2.ReportUsageRequest.FromString(message)
            if request.WhichOneof("message") == "batch":
                batch = request.batch
                answer = usage_pb2.ReportUsageResponse(journal=batch.journal, acknowledged=batch.number)
                await context.write(answer.SerializeToString())


async def run(snapshot: Path, socket: str, rate: float) -> None:
    """Push until standard input ends."""
    pusher = Pusher(snapshot.read_bytes()[len(MAGIC) + 32 :], rate)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler = grpc.stream_stream_rpc_method_handler
    for service, method, call in (
        ("ccr.rpc.v1.SnapshotService", "WatchSnapshots", pusher.watch),
        ("ccr.rpc.v1.UsageService", "ReportUsage", pusher.report),
    ):
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler(call)})])
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    print("ready", flush=True)
    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        pusher.command(word)
    print(json.dumps({"accepted": pusher.accepted, "rejected": pusher.rejected}), flush=True)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
