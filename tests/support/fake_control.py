"""A control plane inside the test's process, on a Unix socket: keeps the contract, or breaks it as the test says.

It speaks bytes, so that it can send garbage. Usage is judged as the contract says, in `counted` and `acknowledged`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from ccr_data.shell.control_link import ControlAddress
from ccr_rpc.v1 import snapshot_pb2, usage_pb2

Context = Any  # grpc.aio.ServicerContext, of bytes


@dataclass
class WatchStream:
    """One watch stream, seen from the server: what the node said, and a way to answer."""

    hello: snapshot_pb2.NodeHello
    context: Context
    answers: asyncio.Queue[snapshot_pb2.WatchSnapshotsRequest] = field(default_factory=asyncio.Queue)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, snapshot: snapshot_pb2.Snapshot) -> None:
        """Offer a snapshot."""
        await self.send_bytes(snapshot_pb2.WatchSnapshotsResponse(snapshot=snapshot).SerializeToString())

    async def send_bytes(self, message: bytes) -> None:
        """Send whatever the test wants."""
        await self.context.write(message)

    async def answer(self) -> snapshot_pb2.WatchSnapshotsRequest:
        """What the node says next."""
        async with asyncio.timeout(5):
            return await self.answers.get()


@dataclass
class Batches:
    """What a store keeps of usage: it outlives control planes."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    counted: list[usage_pb2.UsageBatch] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)  # everything, as it came, duplicates too

    @property
    def request_ids(self) -> list[str]:
        """Requests told one by one, as often as they were counted."""
        return [record.request_id for batch in self.counted for record in batch.records]

    @property
    def request_count(self) -> int:
        """All requests, told or folded."""
        return len(self.request_ids) + sum(part.requests for batch in self.counted for part in batch.sums)


class FakeControl:
    """A control plane that does what the test says."""

    def __init__(self, socket: Path, batches: Batches | None = None) -> None:
        self.socket = socket
        self.batches = batches or Batches()
        self.watches: asyncio.Queue[WatchStream] = asyncio.Queue()
        self.usage_hellos: list[usage_pb2.ReporterHello] = []
        self.acknowledges = True  # False: hangs on usage, as if stopped
        self.leases: list[usage_pb2.Lease] = []  # to come with the next acknowledgement
        self.metadata: list[dict[str, str]] = []
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> ControlAddress:
        """Where it listens."""
        return ControlAddress(f"unix:{self.socket}")

    async def start(self) -> None:
        """Listen."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    "ccr.rpc.v1.SnapshotService",
                    {"WatchSnapshots": handler(self._watch, snapshot_pb2.WatchSnapshotsRequest.FromString, bytes)},
                ),
                grpc.method_handlers_generic_handler(
                    "ccr.rpc.v1.UsageService", {"ReportUsage": handler(self._report, bytes, bytes)}
                ),
            ]
        )
        self._server.add_insecure_port(f"unix:{self.socket}")
        await self._server.start()

    async def stop(self) -> None:
        """Stop at once: streams break."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def watch(self) -> WatchStream:
        """The next watch stream."""
        async with asyncio.timeout(10):
            return await self.watches.get()

    async def _watch(self, requests: AsyncIterator[snapshot_pb2.WatchSnapshotsRequest], context: Context) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        stream = WatchStream((await anext(requests)).hello, context)
        self.watches.put_nowait(stream)
        try:
            async for request in requests:
                stream.answers.put_nowait(request)
        finally:
            stream.ended.set()

    async def _report(self, requests: AsyncIterator[bytes], context: Context) -> None:
        async for message in requests:
            request = usage_pb2.ReportUsageRequest.FromString(message)
            if request.WhichOneof("message") == "hello":
                self.usage_hellos.append(request.hello)
                continue
            self.batches.received.append(message)
            if not self.acknowledges:
                await asyncio.Event().wait()  # until the stream ends
            number = await self._take(request.batch, context)
            leases, self.leases = self.leases, []
            response = usage_pb2.ReportUsageResponse(journal=request.batch.journal, acknowledged=number, leases=leases)
            await context.write(response.SerializeToString())

    async def _take(self, batch: usage_pb2.UsageBatch, context: Context) -> int:
        acknowledged = self.batches.acknowledged.get(batch.journal, batch.number - 1)
        if batch.number > acknowledged + 1:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"journal {batch.journal}: expected number {acknowledged + 1}, got {batch.number}",
            )
        if batch.number == acknowledged + 1:
            self.batches.counted.append(batch)
        self.batches.acknowledged[batch.journal] = max(acknowledged, batch.number)
        return self.batches.acknowledged[batch.journal]


@asynccontextmanager
async def controlling(socket: Path, batches: Batches | None = None) -> AsyncIterator[FakeControl]:
    """A control plane while the block runs."""
    control = FakeControl(socket, batches)
    await control.start()
    try:
        yield control
    finally:
        await control.stop()
