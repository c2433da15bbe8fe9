"""FleetService: the nodes and what each of them serves."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc.aio
from ccr_rpc.v1 import fleet_pb2, fleet_pb2_grpc

from ccr_control.core.fleet import Fleet
from ccr_control.services.wire import node_message
from ccr_control.shell.publisher import Publisher


class FleetServicer(fleet_pb2_grpc.FleetServiceServicer):
    """Shows the fleet."""

    def __init__(self, fleet: Fleet, publisher: Publisher, now: Callable[[], float]) -> None:
        self._fleet, self._publisher, self._now = fleet, publisher, now

    async def ListNodes(
        self, request: fleet_pb2.ListNodesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> fleet_pb2.ListNodesResponse:
        """All nodes of the last day, by name."""
        nodes = [node_message(node) for node in self._fleet.nodes(self._now())]
        return fleet_pb2.ListNodesResponse(nodes=nodes, newest_version=self._publisher.version)
