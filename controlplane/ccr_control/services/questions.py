"""Questions to nodes, which alone decide where requests go: each to one node, and its answer by number. Also: telling one to end.

A node may be gone, slow, or of a version that knows no questions; then the next one is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from ccr_rpc.v1 import snapshot_pb2

from ccr_control.core.fleet import Fleet

ANSWER_WITHIN_S = 2.0
MAX_NODES_ASKED = 3
MAX_WAITING = 64


class NoNode(Exception):
    """No node is there or answers in time; the message is for whoever asked."""


class _Gone(Exception):
    """The node will not answer."""


class Line:
    """The way to one node, for as long as its stream is open."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.outbox: asyncio.Queue[snapshot_pb2.WatchSnapshotsResponse] = asyncio.Queue(MAX_WAITING)
        self._waiting: dict[int, asyncio.Future[snapshot_pb2.RouteAnswer]] = {}

    async def ask(self, question: snapshot_pb2.RouteQuestion) -> snapshot_pb2.RouteAnswer:
        """The node's answer. Raises _Gone, or TimeoutError."""
        answered: asyncio.Future[snapshot_pb2.RouteAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[question.id] = answered
        try:
            self.outbox.put_nowait(snapshot_pb2.WatchSnapshotsResponse(question=question))
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await answered
        except asyncio.QueueFull:
            raise _Gone from None
        finally:
            del self._waiting[question.id]

    def answered(self, answer: snapshot_pb2.RouteAnswer) -> None:
        """The node has answered; one that comes too late is of no interest."""
        waiting = self._waiting.get(answer.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def hang_up(self) -> None:
        """The stream has ended."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_Gone())


class Questions:
    """The lines to all connected nodes. All methods are for the event loop."""

    def __init__(self, fleet: Fleet, now: Callable[[], float]) -> None:
        self._fleet, self._now = fleet, now
        self._lines: dict[str, Line] = {}
        self._count = 0

    @contextlib.contextmanager
    def line(self, node_id: str) -> Iterator[Line]:
        """A line while the block runs; it replaces an older one of the node."""
        line = self._lines[node_id] = Line(node_id)
        try:
            yield line
        finally:
            if self._lines.get(node_id) is line:
                del self._lines[node_id]
            line.hang_up()

    def drain(self, node_id: str) -> bool:
        """Have a node told to finish its requests and end. Returns whether it is there to be told."""
        line = self._lines.get(node_id)
        if line is None or line.outbox.full():
            return False
        line.outbox.put_nowait(snapshot_pb2.WatchSnapshotsResponse(drain=snapshot_pb2.Drain()))
        return True

    async def ask(
        self, request: snapshot_pb2.HypotheticalRequest, candidate: snapshot_pb2.Snapshot | None, node_id: str = ""
    ) -> tuple[str, snapshot_pb2.RouteAnswer]:
        """Who answered, and what. Any node if none is named, first one with the newest snapshot. Raises NoNode.

        Takes ANSWER_WITHIN_S for each of at most MAX_NODES_ASKED nodes.
        """
        lines = self._in_order(node_id)
        if not lines:
            raise NoNode(f"no node called {node_id} is connected" if node_id else "no node is connected")
        for line in lines:
            self._count += 1
            question = snapshot_pb2.RouteQuestion(id=self._count, request=request, candidate=candidate)
            try:
                return line.node_id, await line.ask(question)
            except (_Gone, TimeoutError):
                continue
        asked = ", ".join(line.node_id for line in lines)
        raise NoNode(f"{asked}: no answer within {ANSWER_WITHIN_S:.0f} s; is the software there as new as here?")

    def _in_order(self, node_id: str) -> list[Line]:
        if node_id:
            return [self._lines[node_id]] if node_id in self._lines else []
        served = {node.node_id: node.served_version for node in self._fleet.nodes(self._now())}
        lines = sorted(self._lines.values(), key=lambda line: (-served.get(line.node_id, 0), line.node_id))
        return lines[:MAX_NODES_ASKED]
