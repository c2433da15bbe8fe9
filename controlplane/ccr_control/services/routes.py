"""RouteService: why a request went where it went, and where one would go that nobody sent."""

# ruff: noqa: N802 - names and arguments of handlers are the contract's

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeAlias

import grpc
import grpc.aio
from ccr_rpc.v1 import routes_pb2, routes_pb2_grpc, snapshot_pb2, usage_pb2

from ccr_control.core.config import as_text
from ccr_control.core.errors import ConfigInvalid, SnapshotInvalid
from ccr_control.core.recent import MAX_RECENT, Recent
from ccr_control.core.withheld import without_secrets
from ccr_control.services.questions import NoNode, Questions
from ccr_control.shell.access import require
from ccr_control.shell.config_file import ConfigFormat, revise

CAUSE = "ccr-cause"  # metadata of a refusal: "config" or "no-node"
MAX_DETAILS_BYTES = 3000  # gRPC sends them as a header
MAX_TEXT = 4096
MAX_HEADERS = 100
_TEXT = "<text>"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic for type checkers only


class RouteServicer(routes_pb2_grpc.RouteServiceServicer):
    """Explains decisions."""

    def __init__(
        self,
        recent: Recent,
        questions: Questions,
        overlays: Sequence[Callable[[snapshot_pb2.Snapshot], None]],
        env: Mapping[str, str],
        now: Callable[[], float],
        folder: Path,
    ) -> None:
        """`overlays` write into a snapshot what changes without the configuration: circuits, spent budgets.

        `folder` is the configuration's: what a hypothetical one names is looked for there.
        """
        self._recent, self._questions, self._overlays, self._env, self._now = recent, questions, overlays, env, now
        self._folder = folder

    async def ExplainRequest(
        self, request: routes_pb2.ExplainRequestRequest, context: Context
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

    async def ExplainRoute(
        self, request: routes_pb2.ExplainRouteRequest, context: Context
    ) -> routes_pb2.ExplainRouteResponse:
        """Where a request would go, as a node decides it."""
        if problem := nonsense(request.request):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        candidate = None
        if request.config:
            require("admin", "deciding by a configuration of your own")  # it may name any variable and file
            try:
                candidate = await asyncio.to_thread(self._candidate, request.config, request.config_name or _TEXT)
            except (ConfigInvalid, SnapshotInvalid) as error:
                context.set_trailing_metadata(((CAUSE, "config"),))
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, told(list(map(str, error.problems))))
            for overlay in self._overlays:
                overlay(candidate)
        try:
            node_id, answer = await self._questions.ask(request.request, candidate, request.node_id)
        except NoNode as error:
            context.set_trailing_metadata(((CAUSE, "no-node"),))
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return routes_pb2.ExplainRouteResponse(answer=answer, node_id=node_id)

    def _candidate(self, config: bytes, name: str) -> snapshot_pb2.Snapshot:
        """What a configuration would be served as, without its secrets. Raises ConfigInvalid or SnapshotInvalid."""
        fmt: ConfigFormat = "toml" if PurePath(name).suffix == ".toml" else "yaml"
        text = as_text(config, file=name)
        return without_secrets(
            revise(text, file=name, fmt=fmt, env=self._env, now_s=self._now(), folder=self._folder).snapshot
        )


def nonsense(request: snapshot_pb2.HypotheticalRequest) -> str:
    """What is wrong with a hypothetical request; empty if nothing is."""
    if not request.model:
        return "request.model: is required"
    if request.input_tokens < 0:
        return f"request.input_tokens: must be 0 or more, not {request.input_tokens}"
    if len(request.headers) > MAX_HEADERS:
        return f"request.headers: must be at most {MAX_HEADERS}, not {len(request.headers)}"
    texts = [("model", request.model), ("client", request.client), ("session", request.session)]
    texts += [("headers", text) for header in request.headers for text in (header.name, header.value)]
    for what, text in texts:
        if len(text) > MAX_TEXT or not text.isprintable():
            return f"request.{what}: must be up to {MAX_TEXT} printable characters"
    return ""


def told(problems: Sequence[str]) -> str:
    """As many of the problems as a refusal has room for, one on a line."""
    lines: list[str] = []
    size = 0
    for number, problem in enumerate(problems):
        size += len(problem.encode()) + 1
        if size > MAX_DETAILS_BYTES and lines:
            return "\n".join([*lines, f"and {len(problems) - number} more"])
        lines.append(problem[:MAX_DETAILS_BYTES])
    return "\n".join(lines)
