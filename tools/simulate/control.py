"""The control plane: what server.py, services/usage.py, services/snapshot.py, shell/publisher.py and the store do between the
decisions of ccr_control.core.

Leasing, HealthKeeper and the Prober's timetable are the real ones; probes ask the simulated upstreams. `Disk` stands for the store:
the ledger, circuits and the newest version outlive a crash, leases do not.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from ccr_control.core.circuits import Closed
from ccr_control.core.health import ProbeResult
from ccr_control.core.leases import Leases
from ccr_control.core.ledger import Counters, Duplicate, Gap, by_provider, counters_of, fold, judge
from ccr_control.core.remembered import Remembered
from ccr_control.services.evidence import evidence_of
from ccr_control.services.leasing import Leasing
from ccr_control.services.wire import finished, folded
from ccr_control.shell.health import HealthKeeper
from ccr_control.shell.prober import Prober
from ccr_data.shell.wire import to_snapshot
from ccr_rpc.v1 import snapshot_pb2, usage_pb2

if TYPE_CHECKING:
    from ccr_control.core.ledger import Sums
    from ccr_data.core.snapshot import Snapshot

    from simulate.nodes import Node
    from simulate.world import World

COALESCE_S = 0.003
PROBE_S = 0.05


class Disk:
    """What outlives a control plane."""

    def __init__(self) -> None:
        self.version = 0
        self.remembered: Remembered | None = None  # the circuits
        self.totals: dict[str, Counters] = {}
        self._acknowledged: dict[str, int] = {}

    def count(self, journal: str, number: int, sums: Sums) -> int | Gap:
        """Database.count: the number to acknowledge, or the one that is missing."""
        verdict = judge(self._acknowledged.get(journal), number)
        if isinstance(verdict, Gap):
            return verdict
        if isinstance(verdict, Duplicate):
            return verdict.acknowledged
        self._acknowledged[journal] = number
        for provider, counters in by_provider(sums).items():
            counters_of(self.totals, provider).add(counters)
        return number

    def has(self, journal: str, number: int) -> bool:
        """Whether a batch is counted, although nobody may know yet."""
        return self._acknowledged.get(journal, 0) >= number

    @property
    def requests(self) -> int:
        """How many are counted."""
        return sum(one.requests for one in self.totals.values())


class Control:
    """One process of the control plane."""

    def __init__(self, world: World, disk: Disk) -> None:
        self.world, self.disk, self.clock = world, disk, world.clock
        roll = Random(f"{world.plan.seed} control {world.clock.now_s}").random  # noqa: S311
        self.keeper = HealthKeeper(lambda: world.config, self._publish_soon, self.clock.unix)
        self._prober = Prober(self.keeper, self.clock.unix, roll)
        self.leases = Leases(self.clock.now_s, int(self.clock.unix() * 1000), world.plan.nodes)
        self._leasing = Leasing(self.leases, self.clock.monotonic, self.clock.unix)
        self._streams: dict[int, Node] = {}
        self.snapshot: Snapshot | None = None
        self._is_publishing = False
        self._look = 0
        self._told_s: dict[str, float] = {}
        if disk.remembered is not None:
            self.keeper.restore(disk.remembered)
        self._publish()
        self._look_around()

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def _publish_soon(self) -> None:
        """Publisher.renew: changes of a few milliseconds go together."""
        if not self._is_publishing:
            self._is_publishing = True
            self.clock.after(COALESCE_S, self._publish)

    def _publish(self) -> None:
        self._is_publishing = False
        self.disk.version += 1
        message = snapshot_pb2.Snapshot()
        message.CopyFrom(self.world.content)
        message.version = self.disk.version
        self.keeper.overlay(message)
        self._note_openings()
        self.snapshot = to_snapshot(message)
        for stream in self._streams:
            self._offer(stream)

    def _note_openings(self) -> None:
        for config, health in self.keeper.providers():
            event = health.events[-1] if health.events else None
            failure = health.last_failure
            if (
                event is not None
                and event.state == "open"
                and event.at_s > self._told_s.get(config.name, 0.0)
                and failure is not None
            ):
                self._told_s[config.name] = event.at_s
                self.world.opened(self.disk.version, failure.ended_s - (self.clock.unix() - self.clock.now_s))

    def _offer(self, stream: int) -> None:
        node = self._streams[stream]
        self.world.carry(node, stream, node.offered, self.snapshot)

    # --- streams ------------------------------------------------------------------------------------------------------

    def joined(self, node: Node) -> int:
        """A node opens its streams."""
        for stream in [stream for stream, other in self._streams.items() if other is node]:
            del self._streams[stream]
        stream = self.world.next_stream()
        self._streams[stream] = node
        self._offer(stream)
        return stream

    def left(self, node: Node) -> None:
        """A node has died: its streams end."""
        for stream in [stream for stream, other in self._streams.items() if other is node]:
            del self._streams[stream]

    def take(self, stream: int, payload: bytes) -> None:
        """UsageServicer.ReportUsage and _take."""
        node = self._streams.get(stream)
        if node is None:
            return
        batch = usage_pb2.UsageBatch.FromString(payload)
        self.keeper.heard(batch.journal, batch.number, evidence_of(batch))
        self._heed_news()
        sums = fold([finished(record) for record in batch.records], [folded(part) for part in batch.sums])
        counted = self.disk.count(batch.journal, batch.number, sums)
        if isinstance(counted, Gap):
            del self._streams[stream]
            self.world.carry(node, stream, node.reports.gap, stream, batch.journal, counted.expected)
            return
        leases = self._leasing.answer(node.name, str(node.instance), batch)
        if leases:
            self.world.checks.leases_given(self.leases)
        response = usage_pb2.ReportUsageResponse(journal=batch.journal, acknowledged=counted, leases=leases)
        self.world.carry(node, stream, node.reports.answered, stream, response.SerializeToString())

    # --- probes -------------------------------------------------------------------------------------------------------

    def _heed_news(self) -> None:
        if self.keeper.news.is_set():
            health = self.keeper._health  # HealthKeeper.keep_saved
            self.disk.remembered = Remembered(tuple(health.saved()), (), ())
            self._look_around()

    def _look_around(self) -> None:
        """Prober.run."""
        if self.world.control is not None and self.world.control is not self:
            return
        self._look += 1
        self.keeper.news.clear()
        for provider, scope in self._prober._due():
            self.clock.after(PROBE_S, self._probed, provider.name, scope)
        self.clock.after(self._prober._pause_s(), self._look_again, self._look)

    def _look_again(self, look: int) -> None:
        if look == self._look and self.world.control is self:
            self._look_around()

    def _probed(self, name: str, scope: str) -> None:
        if self.world.control is not self:
            return
        is_alive = self.world.upstreams[name].is_alive(scope, self.clock.now_s)
        result = ProbeResult(self.clock.unix(), is_alive, PROBE_S * 1000, 200 if is_alive else 0)
        self.keeper.probed(name, result, scope)
        self._heed_news()

    def open_circuits(self) -> dict[str, float]:
        """Providers that are passed by, and since when (virtual time)."""
        return {
            config.name: health.circuit.since_s - (self.clock.unix() - self.clock.now_s)
            for config, health in self.keeper.providers()
            if not isinstance(health.circuit, Closed)
        }
