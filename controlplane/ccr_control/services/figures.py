"""All that shows figures, wired: statistics, records, the ledger, and what brings them together on one screen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ccr_rpc.v1 import (
    config_pb2,
    fleet_pb2,
    keys_pb2,
    ledger_pb2_grpc,
    providers_pb2,
    stats_pb2_grpc,
)
from google.protobuf.message import Message

from ccr_control.core.burndown import BurnDown
from ccr_control.core.events import Event
from ccr_control.core.fleet import Fleet
from ccr_control.core.recent import Recent
from ccr_control.core.stats import Stats
from ccr_control.core.unknowns import UnknownName, Unknowns
from ccr_control.services.dashboard import DashboardServicer, Make, add_dashboard_servicer, stats_maker
from ccr_control.services.ledger import LedgerServicer, Spending
from ccr_control.services.metrics import exposition
from ccr_control.services.records import RecordServicer, add_record_servicer
from ccr_control.services.stats import StatsServicer
from ccr_control.shell.events import Asking, EventLog
from ccr_control.shell.listeners import Services
from ccr_control.shell.news import News


class Figures:
    """What is known of requests, for whoever counts them and whoever shows them."""

    def __init__(
        self,
        stats: Stats,
        fleet: Fleet,
        spending: Spending,
        burndown: BurnDown,
        store: Asking,
        events: EventLog,
        now: Callable[[], float],
    ) -> None:
        self.recent, self.arrivals, self.unknowns = Recent(), News(), Unknowns()
        self._stats, self._store, self._events, self._now = stats, store, events, now
        self._stats_servicer = StatsServicer(stats, now, fleet.open_requests, self.unknowns)
        self._ledger_servicer = LedgerServicer(store, spending, now)
        self._spending, self._burndown = spending, burndown
        self._makers: dict[str, Make] = {}

    def note_unknown(self, name: UnknownName, count: int) -> None:
        """A node saw a name that it does not know; the first time that is an event."""
        if self.unknowns.note(name, count, self._now()):
            where = name.kind.replace("_", " ")
            words = f"{where} {name.name} is not known to this version; said by {name.said_by or 'an unnamed client'}"
            self._events.note("drift", "unknown.seen", f"unknowns/{name.kind}/{name.name}", message=words)

    def offer(self, services: Services) -> None:
        """Have the services offered, after all others: screens show what these answer."""
        services.add("ccr.rpc.v1.StatsService", stats_pb2_grpc.add_StatsServiceServicer_to_server, self._stats_servicer)
        services.add(
            "ccr.rpc.v1.UsageLedgerService",
            ledger_pb2_grpc.add_UsageLedgerServiceServicer_to_server,
            self._ledger_servicer,
        )
        services.add("ccr.rpc.v1.RecordService", add_record_servicer, RecordServicer(self.recent, self.arrivals))
        self._makers = {"stats": stats_maker(self._stats_servicer.message), **makers(services)}
        dashboard = DashboardServicer(
            self._stats,
            self.recent,
            self._events,
            self._makers,
            self._events_before,
            self._now,
            self._burndown,
        )
        services.add("ccr.rpc.v1.DashboardService", add_dashboard_servicer, dashboard)

    async def metrics(self) -> bytes:
        """Everything for Prometheus."""
        parts = {name: await make() for name, make in self._makers.items() if name != "keys"}
        spending = self._spending
        return exposition(self._stats.meters, parts, spending.budgets, spending.spent, len(self.unknowns))

    async def _events_before(self, most: int) -> list[Event]:
        return await self._store.ask(lambda tables: tables.changes.events_before("", "", 0, most))


_SHOWN: tuple[tuple[str, str, str, Callable[[], Message]], ...] = (
    ("providers", "ProviderService", "ListProviders", providers_pb2.ListProvidersRequest),
    ("keys", "KeyService", "ListKeys", keys_pb2.ListKeysRequest),
    ("scopes", "KeyService", "ListScopes", keys_pb2.ListScopesRequest),
    ("nodes", "FleetService", "ListNodes", fleet_pb2.ListNodesRequest),
    ("config", "ConfigService", "GetConfig", config_pb2.GetConfigRequest),
)
"""Part of a screen, and the method that answers it."""


def makers(services: Services) -> dict[str, Make]:
    """What other services answer, for screens."""
    return {
        part: _asking(getattr(servicer, method), request)
        for part, service, method, request in _SHOWN
        if (servicer := services.servicer(f"ccr.rpc.v1.{service}")) is not None
    }


def _asking(method: Callable[[Message, None], Awaitable[Message]], request: Callable[[], Message]) -> Make:
    """A maker that asks a method of ours; these need no context."""

    async def make() -> Message:
        answer = await method(request(), None)
        if isinstance(answer, config_pb2.GetConfigResponse):  # screens show its state
            answer.ClearField("redacted_yaml")
        return answer

    return make
