"""A whole fleet: planes, providers and clients on one clock, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

from ccr_control.core.compile import compile_snapshot
from ccr_control.core.config import Config, load
from ccr_control.core.leases import BudgetName, Leases
from ccr_control.core.pricing import PRICES
from ccr_data.core.records import Record
from ccr_data.core.snapshot import Snapshot, Target

from simulate.checks import Checks
from simulate.clock import EPOCH_S, Clock
from simulate.control import Control, Disk
from simulate.links import Network
from simulate.nodes import Flight, Machine, Node, requests_in
from simulate.plans import Crash, Plan
from simulate.providers import CACHE_S, Upstream
from simulate.sessions import Clients, Ending, Session, Turn

SAMPLES = 60
STREAM_LOST_S = 2.0  # until somebody notices, on average


@dataclass(slots=True)
class Sample:
    """The figures of a part of the run."""

    at_s: float
    requests: int = 0
    served: int = 0
    attempts: int = 0
    limited: int = 0
    cache_read: int = 0
    direct_read: int = 0
    usd: float = 0.0
    lease_error: float = 0.0  # share of the budgets that is not where the demand is
    open_circuits: int = 0
    limited_by: dict[str, int] = field(default_factory=dict)
    attempts_by: dict[str, int] = field(default_factory=dict)


def config_text(plan: Plan) -> str:
    """The configuration, as an operator would write it."""
    strategy, affinity = plan.routing
    lines = [
        "version: 1",
        f"server: {{listen: '127.0.0.1:8787', workers: {min(plan.nodes, 256)}, auth: {{mode: none}}}}",
        f"routing: {{strategy: {strategy}, affinity: {affinity}}}",
        *plan.config_lines,
        "providers:",
    ]
    for provider in plan.providers:
        lines += [
            f"  - name: {provider.name}",
            "    type: anthropic",
            f"    base_url: https://{provider.name}.example.com",
            f"    price_factor: {provider.price_factor}",
            "    timeouts: {first_byte: 20s}",
            "    keys:",
        ]
        for scope in provider.scopes:
            limits = "".join(
                f", {name}: {n}" for name, n in (("rpm_limit", scope.rpm), ("itpm_limit", scope.itpm)) if n
            )
            for n in range(scope.keys):
                label = scope.name if scope.keys == 1 else f"{scope.name}-{n}"
                secret = f"sk-simulated-{provider.name}-{label}"
                said = limits if scope.is_configured else ""
                lines.append(f"      - {{label: {label}, key: {secret}, scope: {scope.name}{said}}}")
    return "\n".join(lines) + "\n"


class World:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = Clock()
        self.config: Config = load(config_text(plan), file="simulated.yaml", fmt="yaml", env={}).config
        self.content = compile_snapshot(self.config, version=1, created_at=datetime.fromtimestamp(EPOCH_S, UTC))
        self.content.relay.sharing_nodes = plan.nodes
        self.checks = Checks(self)
        self.upstreams = {one.name: Upstream(one, plan.spells, plan.seed, plan.warm_up_s) for one in plan.providers}
        self._factor = {one.name: one.price_factor for one in plan.providers}
        self.network = Network(self.clock, plan.messages, plan.seed)
        self._roll = Random(f"{plan.seed} world")  # noqa: S311
        self.disk_snapshots: dict[str, Snapshot] = {}
        self.disk = Disk()
        self.openings = 0  # of circuits
        self.passing_s: list[float] = []  # from the failure that opened a circuit until a node passed the provider by
        self._opened_s: dict[int, float] = {}  # by the version that tells of it
        self._streams = 0
        self.control: Control | None = None
        self.control = Control(self, self.disk)
        count = -(-plan.nodes // plan.workers)
        self.machines = [Machine(number) for number in range(count)]
        self.nodes: dict[str, Node] = {}
        self._forgot_s: dict[int, float] = {}
        self.restarts = 0  # of nodes
        for number in range(plan.nodes):
            self._start_node(f"n{number}", self.machines[number // plan.workers], 1)
        quiet_s = plan.until_s - plan.settle_s
        self.clients = Clients(self.clock, plan.seed, plan.crowds, count, quiet_s, self.send)
        for crash in plan.crashes:
            self.clock.after(crash.at_s, self._crash, crash)
        self.samples: list[Sample] = []
        self.attempts = self.extra_attempts = 0
        self.usd = 0.0
        self._before = Sample(0.0)
        self._last_served_s: dict[tuple[int, tuple[str, str]], float] = {}

    def run(self) -> World:
        """Let it all happen."""
        step_s = self.plan.until_s / SAMPLES
        for n in range(1, SAMPLES + 1):
            self.clock.run(n * step_s)
            if not self.plan.is_checked_often:
                self.checks.parts_in_force()
            self._sample()
        self.checks.finish()
        return self

    # --- processes ----------------------------------------------------------------------------------------------------

    def _start_node(self, name: str, machine: Machine, instance: int) -> None:
        node = Node(self, name, machine, instance)
        machine.nodes = [one for one in machine.nodes if one.name != name] + [node]
        self.nodes[name] = node

    def _crash(self, crash: Crash) -> None:
        if crash.who == "control":
            if self.control is None:
                return
            self.control = None
            for node in self.nodes.values():
                self.clock.after(0.01, node.reports.lost_stream, node.reports.stream)
            self.clock.after(crash.back_after_s, self._control_back)
            return
        node = self.nodes[crash.who]
        if not node.is_alive:
            return
        node.die()
        self._forgot_s[node.machine.number] = self.clock.now_s
        if self.control is not None:
            self.control.left(node)
        self.clock.after(crash.back_after_s, self._node_back, node)

    def _control_back(self) -> None:
        self.control = Control(self, self.disk)

    def _node_back(self, before: Node) -> None:
        self.restarts += 1
        self._start_node(before.name, before.machine, before.instance + 1)

    def forgot_s(self, machine: int) -> float:
        """What was noted on this machine shortly before this time may be forgotten."""
        died_s = self._forgot_s.get(machine)
        return died_s if died_s is not None else 0.0

    # --- requests -----------------------------------------------------------------------------------------------------

    def send(self, turn: Turn) -> None:
        """A client's request reaches some worker of its machine."""
        alive = [node for node in self.machines[turn.session.machine].nodes if node.is_alive]
        if not alive:
            self.clients.ended(turn, Ending("lost"))
            return
        node = alive[0] if len(alive) == 1 else alive[int(self._roll.random() * len(alive))]
        node.handle(turn)

    def flight_ended(self, flight: Flight, ending: Ending) -> None:
        """A client has its answer, or lost its connection."""
        attempts = flight.record.attempts
        self.attempts += len(attempts)
        self.extra_attempts += max(0, len(attempts) - 1)
        if ending.outcome == "lost":
            self.checks.ended(flight, "lost")
        else:
            self.checks.ended(flight, ending.outcome)
        if ending.outcome == "served":
            name = flight.target.provider.name
            self.usd += self._cost(flight.record) * self._factor[name]
            self._last_served_s[flight.turn.session.number, (name, flight.target.label)] = flight.arrived_s
        self.clients.ended(flight.turn, ending)

    def refused_by_relay(self, node: Node, turn: Turn, record: Record) -> None:
        """The relay would not send it."""
        del node
        self.clients.ended(turn, Ending("failed", record.status))

    @staticmethod
    def _cost(record: Record) -> float:
        price, tokens = PRICES.get(record.model_asked, PRICES["claude-sonnet-5"]), record.tokens
        read = price.input if price.cache_read is None else price.cache_read
        write = price.input if price.cache_write_5m is None else price.cache_write_5m
        return (
            tokens.input * price.input
            + tokens.output * price.output
            + tokens.cache_read * read
            + tokens.cache_write_5m * write
        ) / 1e6

    def cache_left_s(self, session: Session, home: tuple[str, str]) -> float:
        """For how long after its last answer a session's cache lives there."""
        return self._last_served_s.get((session.number, home), 0.0) + CACHE_S - session.home_s

    @staticmethod
    def account_of(target: Target) -> str:
        """The account behind a target's key."""
        return target.scope[1]

    @staticmethod
    def failure_names(failed: Target) -> tuple[str]:
        """What Journal.sight_failure is told of a target."""
        return (failed.provider.name,)

    def wire_s(self) -> float:
        """Time for a request to arrive at a provider."""
        return 0.005 + 0.2 * self._roll.random()

    # --- messages -----------------------------------------------------------------------------------------------------

    def next_stream(self) -> int:
        """A number for a stream."""
        self._streams += 1
        return self._streams

    def to_control(self, stream: int, payload: bytes) -> None:
        """A batch on its way."""
        if not self.network.carry(stream, self._taken, stream, payload, in_order=True):
            self._breaks(stream)

    def _taken(self, stream: int, payload: bytes) -> None:
        if self.control is not None:
            self.control.take(stream, payload)

    def carry(self, node: Node, stream: int, call: Callable[..., None], *arguments: Any) -> None:
        """Something on its way to a node."""
        if not self.network.carry(stream, call, *arguments, in_order=False):
            self._breaks(stream, node)

    def _breaks(self, stream: int, to: Node | None = None) -> None:
        """A message was lost: the stream is found to be broken a while later."""
        for node in [to] if to is not None else self.nodes.values():
            if node.reports.stream == stream:
                self.clock.after(2 * STREAM_LOST_S * self._roll.random(), node.reports.lost_stream, stream)

    def opened(self, snapshot_version: int, failed_s: float) -> None:
        """A snapshot tells of a circuit that a failure has opened."""
        self.openings += 1
        self._opened_s[snapshot_version] = failed_s

    def passes_by(self, snapshot_version: int) -> None:
        """A node serves a snapshot."""
        failed_s = self._opened_s.get(snapshot_version)
        if failed_s is not None:
            self.passing_s.append(self.clock.now_s - failed_s)

    # --- figures ------------------------------------------------------------------------------------------------------

    def is_configured(self, provider: str, scope: str) -> bool:
        """Whether the configuration states a scope's limits."""
        return self.upstreams[provider].accounts[scope].plan.is_configured

    def budget_names(self, leases: Leases) -> list[BudgetName]:
        """All budgets that anything is known of."""
        return list(leases._holders)

    def undelivered(self) -> int:
        """Requests that were noted and are on their way to the ledger."""
        waiting = 0
        journals = set()
        for node in self.nodes.values():
            reports = node.reports
            waiting += len(reports.noted) if node.is_alive else 0
            for lane in reports.lanes if node.is_alive else ():
                journals.add(lane.journal)
                waiting += sum(
                    requests_in(batch.payload) for batch in lane if not self.disk.has(lane.sent_as, batch.number)
                )
            if node.is_alive and (draft := reports.journal.everything().draft) is not None:
                waiting += requests_in(draft.payload)
        for machine in self.machines:
            for spool in machine.spools:
                if spool.journal not in journals:
                    waiting += sum(
                        requests_in(batch.payload) for batch in spool if not self.disk.has(spool.sent_as, batch.number)
                    )
        return waiting

    def quiet_since(self, provider: str) -> float:
        """Since when nothing was wrong with it."""
        return max((one.until_s for one in self.plan.spells if one.provider == provider), default=0.0)

    def limited(self, provider: str = "") -> int:
        """Requests that providers refused with a 429."""
        return sum(
            account.tally.limited_requests + account.tally.limited_tokens
            for upstream in self.upstreams.values()
            for account in upstream.accounts.values()
            if provider in ("", upstream.plan.name)
        )

    def over_limit(self) -> int:
        """Requests beyond limits that the configuration states."""
        return sum(
            account.tally.limited_requests
            for upstream in self.upstreams.values()
            for account in upstream.accounts.values()
            if account.plan.is_configured
        )

    def arrived(self, provider: str = "") -> int:
        """Requests that providers counted, refused ones included."""
        return sum(
            account.tally.attempts
            for upstream in self.upstreams.values()
            for account in upstream.accounts.values()
            if provider in ("", upstream.plan.name)
        )

    def lease_error(self) -> float:
        """How far the parts in force are from where the demand is, as a share of the budgets (0: each where it is wanted)."""
        now_s = self.clock.now_s
        parts: dict[tuple[object, str], list[tuple[int, int, int]]] = {}
        for node in self.nodes.values():
            if node.is_alive:
                for use in node.budgeting.limits.uses(now_s):
                    if use.limits.requests:
                        parts.setdefault((use.scope, use.model_class), []).append(
                            (use.limits.requests, use.share.requests, use.asked)
                        )
        errors = []
        for of in parts.values():
            asked = sum(one[2] for one in of)
            if asked >= 10 and len(of) > 1:
                errors.append(sum(abs(share / limit - each / asked) for limit, share, each in of) / 2)
        return sum(errors) / len(errors) if errors else 0.0

    def _sample(self) -> None:
        seen, before = self.clients.seen, self._before
        total = Sample(
            self.clock.now_s,
            seen.requests,
            seen.served,
            self.arrived(),
            self.limited(),
            seen.cache_read,
            seen.direct_read,
            self.usd,
            limited_by={name: self.limited(name) for name in self.upstreams},
            attempts_by={name: self.arrived(name) for name in self.upstreams},
        )
        self.samples.append(
            Sample(
                total.at_s,
                total.requests - before.requests,
                total.served - before.served,
                total.attempts - before.attempts,
                total.limited - before.limited,
                total.cache_read - before.cache_read,
                total.direct_read - before.direct_read,
                total.usd - before.usd,
                self.lease_error(),
                len(self.control.open_circuits()) if self.control is not None else 0,
                {name: n - before.limited_by.get(name, 0) for name, n in total.limited_by.items()},
                {name: n - before.attempts_by.get(name, 0) for name, n in total.attempts_by.items()},
            )
        )
        self._before = total
