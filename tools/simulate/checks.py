"""What must always hold, looked at while it happens. What does not is written down with its time, not raised."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ccr_control.core.leases import Leases
from ccr_data.core.pins import Pin
from ccr_data.core.records import PinUse

if TYPE_CHECKING:
    from simulate.nodes import Flight, Node
    from simulate.providers import Account
    from simulate.sessions import Turn
    from simulate.world import World

MAX_TOLD = 20  # of each kind
PIN_SHARED_S = 0.6  # until other workers know of a pin, with what the simulation adds
BACK_AFTER_S = 45.0  # a provider that is well again is used again: a probe's interval, and what is on its way

INVARIANTS = (
    "leases",
    "over limit",
    "needless failure",
    "one outcome",
    "circuit stays open",
    "pin lost",
    "pin left",
    "usage lost",
)


class Checks:
    """The invariants of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.broken: Counter[str] = Counter()
        self.told: list[str] = []
        self.checked: Counter[str] = Counter()
        self.lost_requests = 0  # with killed nodes, as documented
        self.noted_requests = 0
        self._unsaved: list[tuple[str, int, int]] = []

    def fail(self, invariant: str, what: str) -> None:
        """An invariant does not hold."""
        self.broken[invariant] += 1
        if self.broken[invariant] <= MAX_TOLD:
            self.told.append(f"{self._world.clock.now_s:9.3f} s  {invariant}: {what}")

    # --- leases -------------------------------------------------------------------------------------------------------

    def lease_taken(self) -> None:
        """A node has another part of a budget."""
        if self._world.plan.is_checked_often:
            self.parts_in_force()

    def leases_given(self, leases: Leases) -> None:
        """The control plane has given some: what it thinks that nodes may spend is within the limits."""
        if (
            not self._world.plan.is_checked_often or self._world.restarts
        ):  # what was left behind is counted twice, to be sure
            return
        now_s = self._world.clock.now_s
        for name in self._world.budget_names(leases):
            if not self._world.is_configured(name.provider, name.scope):
                continue  # a bucket: it may be used up at once, and what was used is no claim on what refills
            limit = leases.limits(name, now_s).requests
            total = sum(one.requests for one in leases.claims(name, now_s).values())
            self.checked["leases"] += 1
            if limit and total > limit:
                self._lease_sum(
                    f"claims on {name.provider}/{name.scope} add up to {total} requests, its limit is {limit}"
                )

    def parts_in_force(self) -> None:
        """The parts that nodes keep to, added up."""
        world = self._world
        sums: dict[tuple[tuple[str, str], str], list[int]] = {}
        limits: dict[tuple[tuple[str, str], str], tuple[int, ...]] = {}
        for node in world.nodes.values():
            if not node.is_alive:
                continue
            for use in node.budgeting.limits.uses(world.clock.now_s):
                if not any(use.limits):
                    continue
                name = (use.scope, use.model_class)
                limits[name] = tuple(use.limits)
                total = sums.setdefault(name, [0, 0, 0, 0])
                for at, part in enumerate(use.share):
                    total[at] += part
        for name, total in sums.items():
            self.checked["leases"] += 1
            for at, limit in enumerate(limits[name]):
                if limit and total[at] > limit:
                    self._lease_sum(
                        f"parts of {'/'.join(name[0])} in force add up to {total[at]}, its limit is {limit}"
                    )

    def _lease_sum(self, what: str) -> None:
        if self._world.restarts:  # a new process has an even part until it is told otherwise
            self.broken["leases, after a restart"] += 1
        else:
            self.fail("leases", what)

    # --- requests -----------------------------------------------------------------------------------------------------

    def ended(self, flight: Flight, outcome: str) -> None:
        """A request has ended on its node."""
        self.checked["one outcome"] += 1
        if outcome == "failed":
            self.checked["needless failure"] += 1
            able = self._could_serve(flight)
            if able:
                self.fail(
                    "needless failure",
                    f"{flight.record.request_id} got {flight.record.status} after {len(flight.record.attempts)} attempts, "
                    f"{able} could serve",
                )
        if outcome == "served" and flight.pin is not None:
            self._pin_kept(flight)

    def _could_serve(self, flight: Flight) -> str:
        """A target that would have served the request; empty if none would."""
        world, node, now_s = self._world, flight.node, self._world.clock.now_s
        policy = flight.snapshot.relay
        if len(flight.record.attempts) >= policy.max_attempts or now_s - flight.began_s >= policy.failover_timeout_s:
            return ""
        model = flight.turn.session.crowd.model
        tried = {target.load_key for target in flight.pool}
        for choice in flight.snapshot.routed(model).choices:
            for target in choice.targets:
                scope = world.account_of(target)
                upstream = world.upstreams[target.provider.name]
                budget = node.budgeting.limits.budget(target.scope, model)
                if (
                    target.load_key in tried
                    or target.provider.is_open
                    or upstream.was_troubled(scope, flight.began_s, now_s)
                    or (budget is not None and budget.room_in_s(flight.turn.size_bytes, now_s) > 0)
                    or not upstream.accounts[scope].has_room(now_s)
                ):
                    continue
                return f"{target.provider.name}/{target.label}"
        return ""

    # --- pins ---------------------------------------------------------------------------------------------------------

    def pin_found(self, node: Node, turn: Turn, pin: Pin | None, now_s: float) -> None:
        """A node looked for a session's pin: is it the target that served it last?"""
        session = turn.session
        if (
            session.home is None
            or now_s - session.home_s < PIN_SHARED_S
            or session.home_s < self._world.forgot_s(session.machine)
        ):
            return
        if now_s - session.home_s >= self._world.cache_left_s(session, session.home):
            return
        self.checked["pin lost"] += 1
        if pin is None or (pin.provider, pin.key_label) != session.home:
            found = "nothing" if pin is None else f"{pin.provider}/{pin.key_label}"
            self.fail(
                "pin lost",
                f"session {session.number} was served by {'/'.join(session.home)} {now_s - session.home_s:.1f} s ago, "
                f"{node.name} knows {found}",
            )

    def _pin_kept(self, flight: Flight) -> None:
        pin, record = flight.pin, flight.record
        assert pin is not None
        self.checked["pin left"] += 1
        if flight.target.provider.name == pin.provider and flight.target.label == pin.key_label:
            return
        decision = record.decision
        passed_over = {name for name, _ in decision.passed_over} if decision is not None else set()
        if passed_over & {pin.provider, f"{pin.provider}/{pin.key_label}"}:
            return
        if any(one.provider == pin.provider and one.key_label == pin.key_label for one in record.attempts[:-1]):
            return
        if (
            decision is not None
            and decision.pin is PinUse.LEFT
            and any(one.provider == pin.provider for one in record.attempts[:-1])
        ):
            return
        self.fail(
            "pin left",
            f"{record.request_id} of {pin.provider}/{pin.key_label} went to {flight.target.load_key} without a reason",
        )

    # --- usage --------------------------------------------------------------------------------------------------------

    def usage_noted(self) -> None:
        """A node has noted a finished request."""
        self.noted_requests += 1

    def usage_lost(self, requests: int) -> None:
        """A node was killed before it could tell."""
        self.lost_requests += requests

    def usage_unsaved(self, journal: str, number: int, requests: int) -> None:
        """A node was killed before it knew that a batch had arrived."""
        self._unsaved.append((journal, number, requests))

    # --- at the end ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """All is quiet."""
        world = self._world
        clients = world.clients
        if clients.open:
            self.fail("one outcome", f"{len(clients.open)} turns never ended")
        kept = world.disk.requests
        waiting = world.undelivered()
        self.lost_requests += sum(n for journal, number, n in self._unsaved if not world.disk.has(journal, number))
        self.checked["usage lost"] += self.noted_requests
        if kept + waiting + self.lost_requests != self.noted_requests:
            self.fail(
                "usage lost",
                f"{self.noted_requests} noted, {kept} in the ledger, {waiting} on their way, "
                f"{self.lost_requests} lost with their nodes",
            )
        control = world.control
        self.checked["circuit stays open"] += len(world.upstreams)
        for name, since_s in (control.open_circuits() if control is not None else {}).items():
            quiet_s = world.quiet_since(name)
            longest_s = world.config.health.circuit.max_open_for.total_seconds()
            if world.clock.now_s - max(quiet_s, since_s + longest_s) > BACK_AFTER_S:
                self.fail("circuit stays open", f"{name} is well since {quiet_s:.0f} s, open since {since_s:.0f} s")
        for upstream in world.upstreams.values():
            for account in upstream.accounts.values():
                self._count_over(f"{upstream.plan.name}/{account.plan.name}", account)

    def _count_over(self, name: str, account: Account) -> None:
        tally = account.tally
        self.checked["over limit"] += tally.attempts
        if not account.plan.is_configured or not tally.limited_requests:
            return
        plan, restarts = self._world.plan, self._world.restarts
        even = max(1, account.plan.rpm // plan.nodes)
        if tally.limited_requests <= restarts * even:  # a new process has an even part until it is told otherwise
            self.broken["over limit, after a restart"] += tally.limited_requests
            return
        what = f"{name} refused {tally.limited_requests}, peak {tally.peak} of {account.plan.rpm}"
        self.fail("over limit", what)
