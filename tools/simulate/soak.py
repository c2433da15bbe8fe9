"""Does anything grow with time? A day of virtual time on one clock, and what both planes hold at some of its hours.

    PYTHONPATH=tools python -m simulate.soak --hours 24

Beside what every simulation has, the control plane's figures and its real store are kept, as services/usage.py keeps them. Whatever has
a limit gets a small one, so that the limit is reached within the first hour and the rest of the day shows that it holds.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from ccr_control.core.fleet import Fleet
from ccr_control.core.ledger import fold_detail, without_detail
from ccr_control.core.recent import Recent
from ccr_control.core.sessions import Sessions
from ccr_control.core.sightings import Sightings
from ccr_control.core.spending import Spending
from ccr_control.core.stats import Stats
from ccr_control.core.unknowns import Unknowns
from ccr_control.services.record_wire import note
from ccr_control.services.wire import finished, folded, sighting, status
from ccr_control.store.database import Batch, Counted, Database
from ccr_data.core.pins import Pins
from ccr_rpc.v1 import usage_pb2

from simulate import scenarios
from simulate.nodes import Machine, Node
from simulate.plans import Plan
from simulate.world import World

BEGUN = 0.85  # the part of a fleet's time in which its sessions begin
MOST_PINS = 150
MOST_SESSIONS = 100
MOST_RECENT = 300
_NOT_HELD = (ModuleType, type, FunctionType, BuiltinFunctionType)


@dataclass(frozen=True, slots=True)
class Held:
    """What a part of the relay holds: objects that can be reached from it, and their bytes as Python counts them."""

    objects: int
    kib: int


@dataclass(frozen=True, slots=True)
class Hour:
    """What was held at the end of an hour."""

    hour: int
    requests: int
    held: dict[str, Held]
    rows: dict[str, int]  # of the store's tables
    entries: dict[str, int] = field(default_factory=dict)  # of what has a limit


class Soak(World):
    """A fleet whose control plane keeps all figures."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.store = Database.open(folder / "control.db", 0.0)
        self.stats, self.recent, self.fleet = Stats(), Recent(MOST_RECENT), Fleet()
        self.stats.sessions = Sessions(MOST_SESSIONS)
        self.sightings, self.spending, self.unknowns = Sightings(), Spending(), Unknowns()
        super().__init__(plan)

    def _start_node(self, name: str, machine: Machine, instance: int) -> None:
        super()._start_node(name, machine, instance)
        node = self.nodes[name]
        known, node.pins = node.pins, Pins(MOST_PINS)
        for session, pin in known.all().items():
            node.pins.learn(session, pin)

    def _taken(self, stream: int, payload: bytes) -> None:
        """A batch arrives; what UsageServicer._take does with it beside circuits and leases."""
        super()._taken(stream, payload)
        batch = usage_pb2.UsageBatch.FromString(payload)
        if self.control is None or not self.disk.has(batch.journal, batch.number):
            return
        now_s = self.clock.unix()
        requests = [finished(record) for record in batch.records]
        node = batch.journal.rpartition(".")[0]
        for record, request in zip(batch.records, requests, strict=True):
            note(self.recent, node, record, request)
        if batch.HasField("status"):
            self.fleet.reported(node, status(batch.status), now_s)
        for seen in batch.rate_limits:
            self.sightings.note(seen.provider, seen.key_label, sighting(seen))
        parts = [folded(part) for part in batch.sums]
        detail = fold_detail(requests, parts)
        sums = without_detail(detail)
        (verdict,) = self.store.count([Batch(batch.journal, batch.number, sums, {}, detail)], now_s)
        if isinstance(verdict, Counted):
            self.stats.count(requests, sums, now_s, parts)
            self.stats.report(now_s)  # a screen looks at it

    def hour(self, number: int) -> Hour:
        """What is held now."""
        gc.collect()
        nodes = [node for node in self.nodes.values() if node.is_alive]
        return Hour(
            number,
            self.clients.seen.requests,
            {part: held(roots) for part, roots in self._parts(nodes).items()},
            {table: self._rows(table) for table in ("ledger", "detail", "journals", "spent")},
            {
                "pins of a node": max(len(node.pins) for node in nodes),
                "sessions": len(self.stats.sessions),
                "records": len(self.recent),
            },
        )

    def _parts(self, nodes: list[Node]) -> dict[str, list[object]]:
        control = self.control
        return {
            "pins": [node.pins for node in nodes] + [node.handovers for node in nodes],
            "routing state": [node.state for node in nodes],
            "rate limits": [node.budgeting for node in nodes],
            "usage under way": [part for node in nodes for part in (node.reports.journal, node.reports.noted)],
            "open requests": [node.flights for node in nodes],
            "leases": [control.leases] if control is not None else [],
            "health": [control.keeper] if control is not None else [],
            "live figures": [self.stats._windows, self.stats._totals, self.stats.meters, self.spending, self.unknowns],
            "series of the last day": [self.stats.history],
            "sessions": [self.stats.sessions],
            "records": [self.recent],
            "nodes and sightings": [self.fleet, self.sightings],
            "store in memory": [self.store._keys, self.store._detail_keys],
        }

    def _rows(self, table: str) -> int:
        return int(self.store._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def held(roots: Iterable[object]) -> Held:
    """All that can be reached from some objects, without code, and without the simulation around them."""
    seen: set[int] = set()
    todo: list[Any] = list(roots)
    count = size = 0
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, _NOT_HELD) or type(one).__module__.startswith("simulate."):
            continue
        seen.add(id(one))
        count += 1
        size += sys.getsizeof(one)
        todo += [one.__self__] if isinstance(one, MethodType) else gc.get_referents(one)
    return Held(count, size // 1024)


def plan_of(seed: int, hours: float, sessions_an_hour: int, nodes: int) -> Plan:
    """A fleet with its usual troubles, as often in an hour however long it runs. Sessions begin until the end, and a while longer."""
    hours /= BEGUN
    return scenarios.fleet(
        seed,
        nodes=nodes,
        scopes=6,
        sessions=max(8, int(sessions_an_hour * hours)),
        minutes=hours * 60,
        mean_turns=5,
        load=0.5,
        troubles=hours / 4,
    )


def soak(seed: int, hours: list[int], sessions_an_hour: int = 250, nodes: int = 2) -> Iterator[Hour]:
    """Run, and look at each of these hours."""
    with tempfile.TemporaryDirectory(prefix="ccr-soak-") as folder:
        world = Soak(plan_of(seed, max(hours), sessions_an_hour, nodes), Path(folder))
        for hour in sorted(hours):
            world.clock.run(hour * 3600.0)
            yield world.hour(hour)
        world.store.close()


def main(arguments: list[str] | None = None) -> int:
    """Run, and print what was held, as lines of JSON."""
    parser = argparse.ArgumentParser("simulate.soak", description="What both planes hold over a day of virtual time.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at", type=int, nargs="+", default=[1, 12, 24], metavar="HOUR", help="when to look")
    parser.add_argument("--sessions", type=int, default=250, help="that begin in an hour")
    parser.add_argument("--nodes", type=int, default=2)
    options = parser.parse_args(arguments)
    for hour in soak(options.seed, options.at, options.sessions, options.nodes):
        print(json.dumps(asdict(hour)), flush=True)
    return 0


if __name__ == "__main__":
    logging.getLogger("ccr").setLevel(logging.CRITICAL)  # what goes wrong is meant to
    sys.exit(main())
