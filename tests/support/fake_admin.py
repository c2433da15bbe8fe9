"""A control plane's admin API inside the test's process, on a Unix socket: shows a scene, and notes what is asked of it.

async with fake_admin(tmp_path) as admin:
    admin.scene.providers.append(...)
    admin.changed()
    assert admin.asked("SetProviderState") == [...]
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from ccr_client.door import Door
from ccr_rpc.v1 import (
    access_pb2,
    access_pb2_grpc,
    config_pb2,
    config_pb2_grpc,
    dashboard_pb2,
    dashboard_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    providers_pb2,
    providers_pb2_grpc,
    records_pb2,
    routes_pb2,
    routes_pb2_grpc,
    snapshot_pb2,
    stats_pb2,
    stats_pb2_grpc,
)
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

Context = Any  # grpc.aio.ServicerContext
Service = Callable[[Any, Any], None]
SERVICES: tuple[Service, ...] = (
    access_pb2_grpc.add_AccessServiceServicer_to_server,
    config_pb2_grpc.add_ConfigServiceServicer_to_server,
    dashboard_pb2_grpc.add_DashboardServiceServicer_to_server,
    events_pb2_grpc.add_EventServiceServicer_to_server,
    fleet_pb2_grpc.add_FleetServiceServicer_to_server,
    keys_pb2_grpc.add_KeyServiceServicer_to_server,
    providers_pb2_grpc.add_ProviderServiceServicer_to_server,
    routes_pb2_grpc.add_RouteServiceServicer_to_server,
    stats_pb2_grpc.add_StatsServiceServicer_to_server,
)
"""What a fake has: each adds it to a server."""

AT_S = 1_700_000_000  # the scene's time
MAX_RECORDS = 200  # a message
YAML = """\
version: 1
routing:
  strategy: failover
  affinity: session
  routes:
    - {name: small, match: {model: claude-haiku-*}, to: [{provider: zai, model: glm-4.5-air}], strategy: cost-based}
    - {match: {}, to: [{provider: anthropic}]}
"""
DIFF = "--- revision 1\n+++ revision 2\n@@ -1 +1 @@\n-weight: 1\n+weight: 2\n"


def at(ago_s: float = 0) -> Timestamp:
    """So long before the scene's time."""
    return Timestamp(seconds=int(AT_S - ago_s))


@dataclass
class Scene:
    """What there is to see."""

    role: access_pb2.Role.ValueType = access_pb2.ROLE_ADMIN
    stats: stats_pb2.Stats = field(default_factory=stats_pb2.Stats)
    providers: list[providers_pb2.ProviderStatus] = field(default_factory=list)
    keys: list[keys_pb2.KeyStatus] = field(default_factory=list)
    scopes: list[keys_pb2.ScopeBudget] = field(default_factory=list)
    nodes: list[fleet_pb2.Node] = field(default_factory=list)
    newest_version: int = 7
    config: config_pb2.GetConfigResponse = field(default_factory=config_pb2.GetConfigResponse)
    revisions: list[config_pb2.Revision] = field(default_factory=list)
    events: list[events_pb2.Event] = field(default_factory=list)
    sessions: list[stats_pb2.Session] = field(default_factory=list)
    records: list[records_pb2.StoredRecord] = field(default_factory=list)
    series: list[stats_pb2.SeriesPoint] = field(default_factory=list)
    refusals: dict[str, tuple[grpc.StatusCode, str]] = field(default_factory=dict)  # by method


class FakeAdmin(
    access_pb2_grpc.AccessServiceServicer,
    config_pb2_grpc.ConfigServiceServicer,
    dashboard_pb2_grpc.DashboardServiceServicer,
    events_pb2_grpc.EventServiceServicer,
    fleet_pb2_grpc.FleetServiceServicer,
    keys_pb2_grpc.KeyServiceServicer,
    providers_pb2_grpc.ProviderServiceServicer,
    routes_pb2_grpc.RouteServiceServicer,
    stats_pb2_grpc.StatsServiceServicer,
):
    """One object for all services."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.calls: list[tuple[str, Message]] = []
        self.watchers: list[asyncio.Event] = []
        self.explained = routes_pb2.ExplainRouteResponse()

    def changed(self) -> None:
        """The scene is another one: every stream tells it."""
        for watcher in self.watchers:
            watcher.set()

    def asked(self, method: str) -> list[Any]:
        """The requests of a method, in order."""
        return [request for name, request in self.calls if name == method]

    async def _note(self, method: str, request: Message, context: Context) -> None:
        self.calls.append((method, request))
        if method in self.scene.refusals:
            await context.abort(*self.scene.refusals[method])

    async def Watch(self, request: dashboard_pb2.WatchRequest, context: Context) -> AsyncIterator[Any]:
        await self._note("Watch", request, context)
        news, told = asyncio.Event(), 0
        self.watchers.append(news)
        try:
            while True:
                said = self._said(request)
                if request.HasField("records"):
                    fresh = [one for one in self.scene.records[told:] if _fits(one, request.records)]
                    left_out = max(0, len(fresh) - MAX_RECORDS)
                    said.records.CopyFrom(
                        records_pb2.TailRecordsResponse(records=fresh[left_out:], skipped=left_out if told else 0)
                    )
                    told = len(self.scene.records)
                yield said
                await news.wait()
                news.clear()
        finally:
            self.watchers.remove(news)

    def _said(self, request: dashboard_pb2.WatchRequest) -> dashboard_pb2.WatchResponse:
        scene, said = self.scene, dashboard_pb2.WatchResponse(at=at())
        if request.stats:
            said.stats.CopyFrom(scene.stats)
        if request.providers:
            said.providers.CopyFrom(providers_pb2.ListProvidersResponse(providers=scene.providers))
        if request.keys:
            said.keys.CopyFrom(keys_pb2.ListKeysResponse(keys=scene.keys))
            said.scopes.CopyFrom(keys_pb2.ListScopesResponse(budgets=scene.scopes))
        if request.nodes:
            nodes = fleet_pb2.ListNodesResponse(nodes=scene.nodes, newest_version=scene.newest_version)
            said.nodes.CopyFrom(nodes)
        if request.config:
            said.config.CopyFrom(scene.config)
        if request.events:
            said.events.extend(scene.events[-50:])
        if request.sessions:
            said.sessions.CopyFrom(stats_pb2.ListSessionsResponse(sessions=scene.sessions[:200]))
        if request.series:
            said.series.extend(scene.series)
        return said

    async def WhoAmI(self, request: Any, context: Context) -> Any:
        await self._note("WhoAmI", request, context)
        return access_pb2.WhoAmIResponse(name="the-test", role=self.scene.role, software_version="1.2.3")

    def _provider(self, name: str) -> providers_pb2.ProviderStatus:
        return next(one for one in self.scene.providers if one.name == name)

    async def SetProviderState(self, request: Any, context: Context) -> Any:
        await self._note("SetProviderState", request, context)
        one = self._provider(request.provider)
        one.state, one.enabled = request.state, request.state != providers_pb2.PROVIDER_STATE_DISABLED
        self.changed()
        return providers_pb2.ProviderResponse(provider=one, snapshot_version=8)

    async def UpdateProvider(self, request: Any, context: Context) -> Any:
        await self._note("UpdateProvider", request, context)
        one = self._provider(request.provider)
        for name in ("weight", "priority"):
            if request.HasField(name):
                setattr(one, name, getattr(request, name))
                one.changed.append(name)
        self.changed()
        return providers_pb2.ProviderResponse(provider=one, snapshot_version=8)

    async def ResetCircuit(self, request: Any, context: Context) -> Any:
        await self._note("ResetCircuit", request, context)
        one = self._provider(request.provider)
        one.circuit = snapshot_pb2.CIRCUIT_STATE_CLOSED
        self.changed()
        return providers_pb2.ResetCircuitResponse(provider=one)

    async def ProbeProvider(self, request: Any, context: Context) -> Any:
        await self._note("ProbeProvider", request, context)
        one = self._provider(request.provider)
        one.last_probe.alive = True
        return providers_pb2.ProbeProviderResponse(provider=one)

    async def SetStrategy(self, request: Any, context: Context) -> Any:
        await self._note("SetStrategy", request, context)
        return providers_pb2.SetStrategyResponse(snapshot_version=8)

    async def UpdateKey(self, request: Any, context: Context) -> Any:
        await self._note("UpdateKey", request, context)
        one = next(key for key in self.scene.keys if (key.provider, key.label) == (request.provider, request.label))
        if request.state:
            one.state = request.state
        for name in ("weight", "priority"):
            if request.HasField(name):
                setattr(one, name, getattr(request, name))
        self.changed()
        return keys_pb2.KeyResponse(key=one, snapshot_version=8)

    async def ListSessions(self, request: Any, context: Context) -> Any:
        await self._note("ListSessions", request, context)
        begin = int(request.page_token or 0)
        page = self.scene.sessions[begin : begin + request.page_size]
        more = begin + len(page)
        token = str(more) if more < len(self.scene.sessions) else ""
        return stats_pb2.ListSessionsResponse(sessions=page, next_page_token=token)

    async def ListEvents(self, request: Any, context: Context) -> Any:
        await self._note("ListEvents", request, context)
        below = int(request.page_token or 0)
        fit = [
            one
            for one in reversed(self.scene.events)
            if (not below or one.id < below) and request.kind in (0, one.kind)
        ]
        page = fit[: request.page_size]
        token = str(page[-1].id) if len(fit) > len(page) else ""
        return events_pb2.ListEventsResponse(events=page, next_page_token=token)

    async def ExplainRoute(self, request: Any, context: Context) -> Any:
        await self._note("ExplainRoute", request, context)
        return self.explained

    async def DrainNode(self, request: Any, context: Context) -> Any:
        await self._note("DrainNode", request, context)
        return fleet_pb2.DrainNodeResponse()

    async def GetConfig(self, request: Any, context: Context) -> Any:
        await self._note("GetConfig", request, context)
        answer = config_pb2.GetConfigResponse()
        answer.CopyFrom(self.scene.config)
        answer.redacted_yaml = YAML
        return answer

    async def GetOverlay(self, request: Any, context: Context) -> Any:
        await self._note("GetOverlay", request, context)
        entry = config_pb2.OverlayEntry(
            resource="providers/zai", field="weight", configured="1", value="2", changed_by="ops", changed_at=at(60)
        )
        return config_pb2.GetOverlayResponse(entries=[entry])

    async def ClearOverlay(self, request: Any, context: Context) -> Any:
        await self._note("ClearOverlay", request, context)
        return config_pb2.ClearOverlayResponse(cleared=3, snapshot_version=9)

    async def ReloadConfig(self, request: Any, context: Context) -> Any:
        await self._note("ReloadConfig", request, context)
        return config_pb2.ReloadConfigResponse(changed=True, snapshot_version=9)

    async def ListRevisions(self, request: Any, context: Context) -> Any:
        await self._note("ListRevisions", request, context)
        return config_pb2.ListRevisionsResponse(revisions=self.scene.revisions)

    async def DiffConfig(self, request: Any, context: Context) -> Any:
        await self._note("DiffConfig", request, context)
        return config_pb2.DiffConfigResponse(diff=DIFF)

    async def RollbackConfig(self, request: Any, context: Context) -> Any:
        await self._note("RollbackConfig", request, context)
        answer = config_pb2.ApplyConfigResponse(diff=DIFF)
        if not request.dry_run:
            answer.revision.number, answer.snapshot_version = 3, 9
        return answer


def _fits(one: records_pb2.StoredRecord, wanted: records_pb2.RecordFilter) -> bool:
    """As far as the tests use filters."""
    attempts = one.record.attempts
    if wanted.provider and wanted.provider not in {attempt.provider for attempt in attempts}:
        return False
    if wanted.session and wanted.session != one.record.session:
        return False
    return not (wanted.with_failed_attempt and not any(attempt.reason for attempt in attempts))


@asynccontextmanager
async def serving(admin: FakeAdmin, socket: Path) -> AsyncIterator[Door]:
    """Listens on a Unix socket; hangs up on everybody at the end."""
    server = grpc.aio.server()
    for add in SERVICES:
        add(admin, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield Door(f"unix:{socket}")
    finally:
        await server.stop(None)


@asynccontextmanager
async def fake_admin(directory: Path, scene: Scene | None = None) -> AsyncIterator[tuple[FakeAdmin, Door]]:
    """The same with a new control plane."""
    admin = FakeAdmin(scene or Scene())
    async with serving(admin, directory / "admin.sock") as door:
        yield admin, door
