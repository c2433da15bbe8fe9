"""RouteService: why a request went where it went."""

# ruff: noqa: N802 - names and arguments of handlers are the contract's

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
from ccr_rpc.v1 import routes_pb2, routes_pb2_grpc, usage_pb2

from ccr_control.core.recent import MAX_RECENT, Recent


class RouteServicer(routes_pb2_grpc.RouteServiceServicer):
    """Explains decisions."""

    def __init__(self, recent: Recent) -> None:
        self._recent = recent

    async def ExplainRequest(
        self, request: routes_pb2.ExplainRequestRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> routes_pb2.ExplainRequestResponse:
        """The record of a finished request."""
        found = self._recent.of(request.request_id)
        if found is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"not among the newest {MAX_RECENT} requests that were told one by one; it may also be still running",
            )
        node_id, record = found
        return routes_pb2.ExplainRequestResponse(record=usage_pb2.RequestRecord.FromString(record), node_id=node_id)
