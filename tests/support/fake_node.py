"""Scripted nodes: they watch snapshots and report usage as ccr-data does, and remember all that they were told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from ccr_rpc.v1 import snapshot_pb2, snapshot_pb2_grpc, usage_pb2, usage_pb2_grpc

WITHIN_S = 10.0


@dataclass
class FakeNode:
    """One watch stream. `reason_to_reject` decides what to answer: a reason, or None to accept."""

    channel: grpc.aio.Channel
    node_id: str = "test/worker-0"
    instance_id: str = "instance-1"
    served_version: int = 0
    reason_to_reject: Callable[[snapshot_pb2.Snapshot], str | None] = lambda _: None
    snapshots: list[snapshot_pb2.Snapshot] = field(default_factory=list)
    heartbeats: int = 0
    questions: list[snapshot_pb2.RouteQuestion] = field(default_factory=list)
    answers: Callable[[FakeNode, snapshot_pb2.RouteQuestion], snapshot_pb2.RouteAnswer | None] = lambda *_: None

    @property
    def versions(self) -> list[int]:
        """The versions it was sent, in order."""
        return [snapshot.version for snapshot in self.snapshots]

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[FakeNode]:
        """Watch while the block runs."""
        self.call = snapshot_pb2_grpc.SnapshotServiceStub(self.channel).WatchSnapshots()
        hello = snapshot_pb2.NodeHello(
            node_id=self.node_id,
            instance_id=self.instance_id,
            software_version="test",
            pid=1,
            served_version=self.served_version,
        )
        await self.call.write(snapshot_pb2.WatchSnapshotsRequest(hello=hello))
        self._news = asyncio.Condition()
        self.ended = asyncio.create_task(self._follow(), name=f"follow {self.node_id}")
        try:
            yield self
        finally:
            self.call.cancel()
            self.ended.cancel()
            await asyncio.wait([self.ended])

    async def got(self, condition: Callable[[snapshot_pb2.Snapshot], bool] = lambda _: True) -> snapshot_pb2.Snapshot:
        """Wait until a snapshot that fits was answered; returns the newest such."""
        async with asyncio.timeout(WITHIN_S), self._news:
            while True:
                for snapshot in reversed(self.snapshots):
                    if condition(snapshot):
                        return snapshot
                await self._news.wait()

    async def _follow(self) -> None:
        """Answer every snapshot. Ends when the server ends the stream; raises AioRpcError if it breaks."""
        async for response in self.call:
            if response.WhichOneof("message") == "question":
                self.questions.append(response.question)
                if (answer := self.answers(self, response.question)) is not None:
                    await self.call.write(snapshot_pb2.WatchSnapshotsRequest(answer=answer))
                continue
            if response.WhichOneof("message") != "snapshot":
                self.heartbeats += 1
                continue
            version = response.snapshot.version
            if reason := self.reason_to_reject(response.snapshot):
                rejected = snapshot_pb2.SnapshotRejected(version=version, reason=reason)
                await self.call.write(snapshot_pb2.WatchSnapshotsRequest(rejected=rejected))
            else:
                self.served_version = version
                accepted = snapshot_pb2.SnapshotAccepted(version=version)
                await self.call.write(snapshot_pb2.WatchSnapshotsRequest(accepted=accepted))
            async with self._news:
                self.snapshots.append(response.snapshot)
                self._news.notify_all()


@dataclass
class FakeReporter:
    """One usage stream."""

    channel: grpc.aio.Channel
    node_id: str = "test/worker-0"

    @contextlib.asynccontextmanager
    async def reporting(self) -> AsyncIterator[FakeReporter]:
        """Hold the stream open while the block runs."""
        self.call: Any = usage_pb2_grpc.UsageServiceStub(self.channel).ReportUsage()
        hello = usage_pb2.ReporterHello(node_id=self.node_id, instance_id="instance-1")
        try:
            await self.call.write(usage_pb2.ReportUsageRequest(hello=hello))
            yield self
        finally:
            self.call.cancel()

    async def send(self, batch: usage_pb2.UsageBatch) -> None:
        """Send a batch and do not wait for its acknowledgement."""
        await self.call.write(usage_pb2.ReportUsageRequest(batch=batch))

    async def acknowledged(self) -> int:
        """The number in the next answer. Raises AioRpcError if the stream breaks."""
        async with asyncio.timeout(WITHIN_S):
            answer = await self.call.read()
        if answer is grpc.aio.EOF:
            raise grpc.aio.AioRpcError(await self.call.code(), None, None, await self.call.details())
        return int(answer.acknowledged)

    async def report(self, batch: usage_pb2.UsageBatch) -> int:
        """Send a batch. Returns the number that is acknowledged."""
        await self.send(batch)
        return await self.acknowledged()


def record(provider: str = "anthropic", started_at_s: int = 1_780_000_000, **fields: Any) -> usage_pb2.RequestRecord:
    """A request that one provider served; `fields` replace what it says."""
    made = usage_pb2.RequestRecord(
        request_id="req_test",
        endpoint=usage_pb2.ENDPOINT_MESSAGES,
        client="laptop",
        model_asked="claude-sonnet-4-5",
        model_used="claude-sonnet-4-5",
        status=200,
        outcome=usage_pb2.OUTCOME_SERVED,
        first_byte_us=400_000,
        total_us=2_000_000,
        overhead_us=300,
        tokens=usage_pb2.TokenUsage(input=10, output=20, cache_read=300),
        attempts=[usage_pb2.Attempt(provider=provider, key_label="team-a", status=200)],
    )
    made.started_at.FromSeconds(started_at_s)
    for name, value in fields.items():
        if name == "attempts":
            del made.attempts[:]
            made.attempts.extend(value)
        else:
            setattr(made, name, value)
    return made


def batch(number: int, *records: usage_pb2.RequestRecord, journal: str = "journal-1") -> usage_pb2.UsageBatch:
    """A numbered batch; without records it holds one."""
    return usage_pb2.UsageBatch(journal=journal, number=number, records=records or [record()])
