"""FleetService: the nodes, what each of them serves, and how to have one end."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc.aio
from ccr_rpc.v1 import fleet_pb2, fleet_pb2_grpc

from ccr_control.core.errors import NoSuchThing, NotPossible
from ccr_control.core.fleet import Fleet
from ccr_control.services.questions import Questions
from ccr_control.services.wire import node_message
from ccr_control.shell.access import caller
from ccr_control.shell.events import EventLog
from ccr_control.shell.publisher import Publisher


class FleetServicer(fleet_pb2_grpc.FleetServiceServicer):
    """Shows the fleet, and drains its nodes."""

    def __init__(
        self, fleet: Fleet, publisher: Publisher, questions: Questions, events: EventLog, now: Callable[[], float]
    ) -> None:
        self._fleet, self._publisher, self._now = fleet, publisher, now
        self._questions, self._events = questions, events

    async def ListNodes(
        self, request: fleet_pb2.ListNodesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> fleet_pb2.ListNodesResponse:
        """All nodes of the last day, by name."""
        nodes = [node_message(node) for node in self._fleet.nodes(self._now())]
        return fleet_pb2.ListNodesResponse(nodes=nodes, newest_version=self._publisher.version)

    async def DrainNode(
        self, request: fleet_pb2.DrainNodeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> fleet_pb2.DrainNodeResponse:
        """Have a node finish its requests and end."""
        node = next((one for one in self._fleet.nodes(self._now()) if one.node_id == request.node_id), None)
        if node is None:
            raise NoSuchThing("NO_SUCH_NODE", f"there is no node {request.node_id[:100]!r}")
        if not self._questions.drain(node.node_id):
            raise NotPossible("NODE_NOT_CONNECTED", f"{node.node_id} is not connected: it cannot be told")
        self._events.note(
            "audit",
            "node.drain",
            f"nodes/{node.node_id}",
            actor=caller().name,
            before={"instance": node.instance_id, "pid": node.pid},
            after={"draining": True},
        )
        return fleet_pb2.DrainNodeResponse()
