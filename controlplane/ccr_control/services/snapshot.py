"""SnapshotService: hands every node the newest snapshot, notes what it says of it, and asks it where requests would go."""

# ruff: noqa: N802 - names and arguments of handlers are the contract's

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeAlias

import grpc.aio
from ccr_rpc.v1 import snapshot_pb2, snapshot_pb2_grpc

from ccr_control.core.fleet import Fleet, Introduction, Rejection
from ccr_control.services.opening import ContractBroken, checked_name, first_request, refuse
from ccr_control.services.questions import Line, Questions
from ccr_control.services.wire import introduction
from ccr_control.shell.access import require_node
from ccr_control.shell.log import Log
from ccr_control.shell.publisher import MAX_VERSION, Publisher

HEARTBEAT_S = 5.0

Requests = AsyncIterator[snapshot_pb2.WatchSnapshotsRequest]
# A string, because it is generic for type checkers only.
Context: TypeAlias = "grpc.aio.ServicerContext[snapshot_pb2.WatchSnapshotsRequest, snapshot_pb2.WatchSnapshotsResponse]"
Tell = Callable[[str, str, str], None]
Write = Callable[[snapshot_pb2.WatchSnapshotsResponse], Awaitable[None]]

log = Log("snapshots")


class _HungUp(Exception):
    """The node has ended its side of the stream."""


class SnapshotServicer(snapshot_pb2_grpc.SnapshotServiceServicer):
    """One watch stream for each node."""

    def __init__(
        self,
        publisher: Publisher,
        fleet: Fleet,
        questions: Questions,
        now: Callable[[], float],
        heartbeat_s: float = HEARTBEAT_S,
        tell: Tell = lambda *_: None,
    ) -> None:
        """`tell` gets what happens to nodes: a word for it, the node's name, and words."""
        self._tell = tell
        self._publisher, self._fleet, self._questions = publisher, fleet, questions
        self._now, self._heartbeat_s = now, heartbeat_s

    async def WatchSnapshots(self, request_iterator: Requests, context: Context) -> None:  # type: ignore[override]  # it writes
        """Send the newest snapshot, then newer ones, until the node hangs up."""
        broken: BaseException | None = None
        try:
            who = await _read_hello(request_iterator)
            if who is None:
                return
            if not self._fleet.trusts(who):  # it may have the version from a life of which we remember nothing
                self._publisher.note_used(who.served_version)
            writing = asyncio.Lock()  # gRPC takes one write at a time

            async def write(response: snapshot_pb2.WatchSnapshotsResponse) -> None:
                async with writing:
                    await context.write(response)

            with self._joined(who) as stream, self._questions.line(who.node_id) as line:
                async with asyncio.TaskGroup() as tasks:  # both directions end together
                    answers = self._note_answers(who, stream, line, request_iterator)
                    tasks.create_task(answers, name=f"answers {who.node_id}")
                    tasks.create_task(_ask(line, write), name=f"questions {who.node_id}")
                    await self._send(who, stream, write)
        except* _HungUp:
            pass
        except* ContractBroken as group:
            broken = group.exceptions[0]
        if broken is not None:
            await refuse(context, ContractBroken(str(broken)))

    async def _send(self, who: Introduction, stream: int, write: Write) -> None:
        """Newer snapshots as they appear, heartbeats meanwhile. Never returns; a slow node skips versions."""
        version = who.served_version
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    snapshot = await self._publisher.newer_than(version)
            except TimeoutError:
                await write(snapshot_pb2.WatchSnapshotsResponse(heartbeat=snapshot_pb2.Heartbeat()))
                continue
            version = snapshot.version
            self._fleet.offered(stream, who.node_id, version)
            await write(snapshot_pb2.WatchSnapshotsResponse(snapshot=snapshot))  # keepalive ends a dead one

    async def _note_answers(self, who: Introduction, stream: int, line: Line, requests: Requests) -> None:
        """What the node says of the snapshots and questions it got. Raises _HungUp at the end, ContractBroken before it."""
        async for request in requests:
            match request.WhichOneof("message"):
                case "accepted":
                    self._fleet.accepted(stream, who.node_id, request.accepted.version, self._now())
                    log.info("snapshot_accepted", node=who.node_id, version=request.accepted.version)
                case "rejected":
                    rejection = Rejection(request.rejected.version, request.rejected.reason)
                    self._fleet.rejected(stream, who.node_id, rejection, self._now())
                    log.error(
                        "snapshot_rejected", node=who.node_id, version=rejection.version, reason=rejection.reason[:1000]
                    )
                    self._tell("node.reject", who.node_id, f"version {rejection.version}: {rejection.reason[:1000]}")
                case "answer":
                    line.answered(request.answer)
                case None:
                    pass  # what a newer node may say
                case _:
                    raise ContractBroken("after the hello every request accepts or rejects a version, or answers")
        raise _HungUp

    @contextlib.contextmanager
    def _joined(self, who: Introduction) -> Iterator[int]:
        stream = self._fleet.joined(who, self._now())
        log.info("node_joined", node=who.node_id, pid=who.pid, served_version=who.served_version)
        self._tell("node.join", who.node_id, f"process {who.pid}, software {who.software_version}")
        try:
            yield stream
        finally:
            self._fleet.left(stream, who.node_id, self._now())
            log.info("node_left", node=who.node_id, pid=who.pid)
            self._tell("node.leave", who.node_id, f"process {who.pid}")


async def _ask(line: Line, write: Write) -> None:
    """Pass on what there is to ask or tell, as it comes. Never returns."""
    while True:
        await write(await line.outbox.get())


async def _read_hello(requests: Requests) -> Introduction | None:
    """Who is asking; None if nobody is. Raises ContractBroken, or Forbidden if it may not be that node."""
    request = await first_request(requests)
    if request is None:
        return None
    if request.WhichOneof("message") != "hello":
        raise ContractBroken("the first request must be a hello")
    require_node(checked_name("node_id", request.hello.node_id))
    checked_name("instance_id", request.hello.instance_id)
    if not 0 <= request.hello.served_version <= MAX_VERSION:
        raise ContractBroken(f"served_version must be in [0, {MAX_VERSION}]")
    return introduction(request.hello)
