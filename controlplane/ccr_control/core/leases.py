"""Which part of a scope's budget belongs to which node?

Pure. Nodes report how they use each budget; what they get back follows their demand. Times are seconds of the caller's clock.

**Claims.** A node may spend by the largest of the leases that it may still be using. So each node has a claim on each budget: the
largest of the last lease that it acknowledged, of all sent to it after that one, and of what it used in its last minute (which
counts at the provider for as long). A new lease is at most what the claims of the others leave. Thus the sum of what all nodes may
spend in any minute stays within the limit, whatever messages are lost or late:

- a share that shrinks is free for others only when the node says that it has the smaller one, and that what it used is down to it;
- a node that falls silent keeps its claim until `FORGET_AFTER_S` after its last report, also if its stream has ended: it may be
  working on. It keeps its last lease for as long as it is cut off. One that said that it ends keeps its claim for `LINGER_S`. One that
  comes back under a new instance has lost its leases but those that it tells of; what its predecessor used and it does not know of
  counts for a minute more. A predecessor that still finishes has handed over to it: what that says changes nothing any more.
- A control plane that has just started knows no leases: for `LEARN_S` it only listens, and nodes tell what they hold. Until all nodes
  that its snapshots name have spoken, at most for `FORGET_AFTER_S`, no part grows that an earlier control plane may have given to one
  that is silent.

Of a kind of amount that nobody knew a limit of, a lease says nothing: whoever learns of one uses an even part until the next lease. Of
a budget that has no known limits at all there are no leases.

A node that never had a lease uses an even part by the number of nodes that its snapshot names; its claim is that, also before it
says anything of the budget or at all. Known nodes get leases of budgets that they have not used yet. A node that nobody knew, of
more than the snapshots name, may exceed the budget by such a part until the others have let go of theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

FORGET_AFTER_S = 600.0
"""What a node that is not heard of any more held is shared out again after this."""

LEARN_S = 3.0
"""A control plane that has just started shares nothing out before it has heard the nodes."""

LINGER_S = 61.0
"""For how long what was used counts at the provider."""

RENEW_S = 60.0
"""A lease that did not change is sent again after this, in case it was lost."""

IDLE_PART = 0.02
"""Part of a budget that is shared out evenly even when all of it is wanted, so that who begins to get requests can serve some."""

FULL = 0.8
"""A budget of which this part is wanted counts as wanted by those only who ask: demand is a minute old."""

STEADY_PART = 0.05
"""A share that would shrink by less than this part of the budget, and by less than half, stays."""

SWEEP_S = 1.0
"""Time between two looks for nodes to forget."""

FEW = 16
LOOK_AGAIN_S = 0.005
"""Among more than a few nodes, demand is looked at anew after this for each node more."""

MAX_SERIAL = 1 << 62
"""What a node says beyond that is not believed: there would be no room for larger ones."""

MAX_BUDGETS = 4096
MAX_HOLDERS = 4096
MAX_BEFORE = 8  # instances of a node that are known to have a successor


class BudgetName(NamedTuple):
    """A budget: of an account at a provider, for a class of models."""

    provider: str
    scope: str
    model_class: str


class Amounts(NamedTuple):
    """Amounts of a minute. As a limit, 0 means that there is none."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    tokens: int = 0


NOTHING = Amounts()


class Use(NamedTuple):
    """What a node says of a budget."""

    limits: Amounts  # the scope's, as the node knows them
    share: Amounts  # that it keeps to
    used: Amounts  # in its last minute
    asked: int  # requests that asked for room in its last minute
    serial: int  # of the lease that it keeps to; 0: none


class Lease(NamedTuple):
    """A node's part of a budget, in force from its arrival until a newer one arrives."""

    name: BudgetName
    share: Amounts
    serial: int
    limits: Amounts  # that it is a part of; of a kind without one it says nothing


class Held(NamedTuple):
    """A budget as all nodes together have it."""

    name: BudgetName
    limits: Amounts
    used: Amounts  # in the last minute
    leased: Amounts
    nodes: int
    asked: int


@dataclass(slots=True)
class _Holder:
    """A node and one budget."""

    instance: str
    use: Use
    heard_s: float
    acknowledged: Lease | None = None
    sent: list[Lease] = field(default_factory=list)  # after the acknowledged one
    sent_s: float = -1e18
    left_behind: Amounts = NOTHING  # by an earlier instance
    left_until_s: float = 0.0
    counted: Amounts = NOTHING  # its claim as it stands in the budget's sum

    def claim(self, now_s: float) -> Amounts:
        """The most that it may spend in the minutes to come."""
        held = [lease.share for lease in self.sent]
        if self.acknowledged is not None:
            held.append(self.acknowledged.share)
        most = largest([*held, self.use.share, self.use.used])
        return added(most, self.left_behind) if now_s < self.left_until_s else most


@dataclass(slots=True)
class _Sum:
    """What is known of all holders of a budget together, so that a report costs no look at each of them."""

    claimed: Amounts = NOTHING  # by all; of those that have not reported since it ended, with what they had left behind
    limits: Amounts | None = None  # None: to be looked for again
    swept_s: float = -1e18
    parts: dict[str, Amounts] = field(default_factory=dict)  # by demand
    parts_of: Amounts = NOTHING  # limits
    parts_s: float = -1e18


def largest(amounts: Iterable[Amounts]) -> Amounts:
    """Of each kind the most."""
    return Amounts(*map(max, zip(*amounts, strict=True)))


def added(one: Amounts, other: Amounts) -> Amounts:
    """Of each kind the sum."""
    return Amounts(*(a + b for a, b in zip(one, other, strict=True)))


def taken_off(whole: Amounts, part: Amounts) -> Amounts:
    """Of each kind the difference."""
    return Amounts(*(a - b for a, b in zip(whole, part, strict=True)))


class Leases:
    """All budgets and who holds which part of them."""

    def __init__(self, started_s: float, first_serial: int = 1, expected_nodes: int = 1) -> None:
        """`first_serial` should be larger than any that an earlier control plane has used, for example a time in milliseconds. Nodes
        heed no smaller one than they have: what they tell of is counted on from.

        `expected_nodes` is how many the snapshots name: fewer may have something that nobody has told yet.
        """
        self._listens_until_s = started_s + LEARN_S
        self._expects_until_s = started_s + FORGET_AFTER_S
        self._expected_nodes = expected_nodes
        self._has_past = False  # an earlier control plane gave leases
        self._first_serial = first_serial
        self._serial = first_serial
        self._holders: dict[BudgetName, dict[str, _Holder]] = {}
        self._sums: dict[BudgetName, _Sum] = {}
        self._even: dict[BudgetName, Amounts] = {}  # what a node without a lease uses
        self._nodes: dict[str, tuple[str, float]] = {}  # instance, and when it was heard
        self._before: dict[str, deque[str]] = {}  # instances that another one has taken the place of

    def reported(self, node: str, instance: str, uses: Mapping[BudgetName, Use], now_s: float) -> list[Lease]:
        """A node tells how it uses its budgets, all of those that it has used or has leases of; what to answer."""
        known = self._nodes.get(node)
        if known is not None and known[0] != instance:
            before = self._before.setdefault(node, deque(maxlen=MAX_BEFORE))
            if instance in before:
                return []
            before.append(known[0])
        self._nodes[node] = (instance, now_s)
        if len(self._nodes) > MAX_HOLDERS:
            oldest = next(iter(self._nodes))
            del self._nodes[oldest]
            self._before.pop(oldest, None)
        for name, use in uses.items():
            # The clock was put back since the control plane that gave it started.
            if self._serial < use.serial < MAX_SERIAL:
                self._first_serial = self._serial = use.serial
            self._note(name, node, instance, use, now_s)
            self._has_past = self._has_past or 0 < use.serial <= self._first_serial
            if not use.serial and any(use.share):
                self._even[name] = largest([use.share, self._even.get(name, NOTHING)])
        for name in self._holders:
            if name not in uses:
                self._note(name, node, instance, None, now_s)
            elif len(self._holders[name]) < len(self._nodes):
                self._expect_others(name, now_s)
        if now_s < self._listens_until_s:
            return []
        return [lease for name in self._holders if (lease := self._grant(name, node, now_s)) is not None]

    def ended(self, node: str, instance: str, now_s: float) -> None:
        """A node has ended in order. One that starts anew within a minute goes on with its leases; after that they are nobody's."""
        if self._nodes.get(node, ("", 0.0))[0] != instance:
            return
        heard_s = now_s + LINGER_S - FORGET_AFTER_S
        self._nodes[node] = (instance, heard_s)
        for holders in self._holders.values():
            if node in holders:
                holders[node].heard_s = heard_s

    def _expect_others(self, name: BudgetName, now_s: float) -> None:
        """Nodes that never spoke of a budget may begin to use it at any time."""
        for node, (instance, heard_s) in self._nodes.items():
            if node not in self._holders[name] and now_s - heard_s < FORGET_AFTER_S:
                self._note(name, node, instance, None, heard_s)

    def limits(self, name: BudgetName, now_s: float) -> Amounts:
        """A budget's limits: the lowest that a node knows."""
        holders = self._live(name, now_s)
        known = self._sums.get(name)
        if known is not None and known.limits is not None:
            return known.limits
        found = NOTHING
        for holder in holders.values():
            found = Amounts(*(min(a, b) if a and b else a or b for a, b in zip(found, holder.use.limits, strict=True)))
        if known is not None:
            known.limits = found
        return found

    def claims(self, name: BudgetName, now_s: float) -> Mapping[str, Amounts]:
        """What each node may spend of a budget, at most."""
        return {node: holder.claim(now_s) for node, holder in self._live(name, now_s).items()}

    def held(self, now_s: float) -> list[Held]:
        """Every budget, as all nodes together have it."""
        found = []
        for name in list(self._holders):
            holders = self._live(name, now_s).values()
            used, leased, asked = NOTHING, NOTHING, 0
            for holder in holders:
                used = added(used, holder.use.used)
                leased = added(leased, holder.use.share)
                asked += holder.use.asked
            limits = self.limits(name, now_s)
            if any(limits):
                found.append(Held(name, limits, used, leased, len(holders), asked))
        return found

    # --- taking in ----------------------------------------------------------------------------------------------------

    def _live(self, name: BudgetName, now_s: float) -> dict[str, _Holder]:
        holders, known = self._holders.get(name, {}), self._sums.get(name)
        if known is None or 0 <= now_s - known.swept_s < SWEEP_S:
            return holders
        known.swept_s = now_s
        for node in [node for node, holder in holders.items() if now_s - holder.heard_s >= FORGET_AFTER_S]:
            self._drop(name, node)
        return holders

    def _drop(self, name: BudgetName, node: str) -> None:
        known = self._sums[name]
        known.claimed = taken_off(known.claimed, self._holders[name].pop(node).counted)
        known.limits = None

    def _count(self, name: BudgetName, holder: _Holder, now_s: float) -> None:
        """Something changed that a claim follows from."""
        known, claim = self._sums[name], holder.claim(now_s)
        if claim != holder.counted:
            known.claimed = added(taken_off(known.claimed, holder.counted), claim)
            holder.counted = claim

    def _note(self, name: BudgetName, node: str, instance: str, told: Use | None, now_s: float) -> None:
        if name not in self._holders and len(self._holders) >= MAX_BUDGETS:
            oldest = next(iter(self._holders))
            del self._holders[oldest], self._sums[oldest]
            self._even.pop(oldest, None)
        use = told or Use(NOTHING, self._even.get(name, NOTHING), NOTHING, 0, 0)
        holders = self._holders.setdefault(name, {})
        known = self._sums.setdefault(name, _Sum())
        holder = holders.get(node)
        if holder is None or holder.instance != instance:
            fresh = _Holder(instance, use, now_s)
            if holder is not None:  # what the process before it spent counts for a while
                # but not twice: it knows what was used in its place, if it could read that
                fresh.left_behind = Amounts(*(max(0, a - b) for a, b in zip(holder.use.used, use.used, strict=True)))
                fresh.left_until_s = now_s + LINGER_S
            if holder is None and len(holders) >= MAX_HOLDERS:
                return
            if holder is not None:
                self._drop(name, node)
            holders[node] = fresh
            known.limits = None
            self._count(name, fresh, now_s)
            return
        holder.heard_s = now_s
        if told is None:  # what it told of before is limited no more; its lease would count again if it were
            use = holder.use._replace(limits=NOTHING, used=NOTHING, asked=0)
        if use.limits != holder.use.limits:
            known.limits = None
        holder.use = use
        for n, lease in enumerate(holder.sent):
            if lease.serial == use.serial:
                holder.acknowledged = lease
                del holder.sent[: n + 1]
                break
        self._count(name, holder, now_s)

    # --- giving out ---------------------------------------------------------------------------------------------------

    def _grant(self, name: BudgetName, node: str, now_s: float) -> Lease | None:
        """The lease to send to a node that has just reported; None if it has what it should have."""
        holders = self._live(name, now_s)
        holder = holders.get(node)
        if holder is None:
            return None
        limits = self.limits(name, now_s)
        if not any(limits):  # known to somebody who is gone; nobody is to keep to a part of nothing
            return None
        known = self._sums[name]
        wanted = self._wanted(known, limits, holders, node, now_s)
        taken = taken_off(known.claimed, holder.counted)
        if now_s < holder.left_until_s:
            taken = added(taken, holder.left_behind)
        if missing := self._missing(now_s):
            even = self._even.get(name, NOTHING)
            taken = added(taken, Amounts(*(missing * part for part in even)))
            if self._has_past:  # it may hold all that is left
                wanted = Amounts(*map(min, wanted, holder.use.share))
        share = Amounts(
            *(
                max(0, min(want, limit - others)) if limit else 0
                for want, limit, others in zip(wanted, limits, taken, strict=True)
            )
        )
        newest = holder.sent[-1] if holder.sent else holder.acknowledged
        if newest is not None and list(map(bool, newest.limits)) != list(map(bool, limits)):
            newest = None  # it does not speak of the same
        if newest is not None and share == newest.share and (not holder.sent or now_s - holder.sent_s < RENEW_S):
            return None
        if newest is not None and self._is_about(share, newest.share, limits) and not holder.sent:
            return None
        if newest is not None and share == newest.share:
            holder.sent_s = now_s
            return newest  # the one before may have been lost
        self._serial += 1
        lease = Lease(name, share, self._serial, limits)
        holder.sent.append(lease)
        holder.sent_s = now_s
        if len(holder.sent) > 64:  # a node that takes none; the largest must not be forgotten
            kept = largest([one.share for one in holder.sent[:33]])
            holder.sent[:33] = [holder.sent[32]._replace(share=kept)]
        self._count(name, holder, now_s)
        return lease

    def _missing(self, now_s: float) -> int:
        """How many nodes may be at work of which nothing was heard yet."""
        return max(0, self._expected_nodes - len(self._nodes)) if now_s < self._expects_until_s else 0

    @staticmethod
    def _is_about(one: Amounts, other: Amounts, limits: Amounts) -> bool:
        """Whether the change to `one` is not worth its while: it only shrinks a little."""
        return all(
            a <= b <= limit and b - a < STEADY_PART * limit and (a == b or b < 2 * a)
            for a, b, limit in zip(one, other, limits, strict=True)
            if limit
        )

    @staticmethod
    def _wanted(known: _Sum, limits: Amounts, holders: Mapping[str, _Holder], node: str, now_s: float) -> Amounts:
        """The node's part by demand, the rest of an integer division to the first by name, so that nothing is lost.

        Among many nodes demand is not looked at for each report.
        """
        age_s = now_s - known.parts_s
        if known.parts_of != limits or node not in known.parts or not 0 <= age_s < LOOK_AGAIN_S * (len(holders) - FEW):
            names = sorted(holders)
            uses = [holders[one].use for one in names]
            weights = demand_weights([use.asked for use in uses], pressure(uses, limits))
            columns = [apportioned(limit, weights) if limit else [0] * len(names) for limit in limits]
            known.parts = {one: Amounts(*parts) for one, *parts in zip(names, *columns, strict=True)}
            known.parts_of, known.parts_s = limits, now_s
        return known.parts[node]


def pressure(uses: Iterable[Use], limits: Amounts) -> float:
    """How much of a budget is wanted: of the kind of amount that is wanted most, from 0; 1: all of it."""
    asked, used = 0, NOTHING
    for use in uses:
        asked += use.asked
        used = added(used, use.used)
    wanted = used._replace(requests=max(asked, used.requests))
    return max((one / limit for one, limit in zip(wanted, limits, strict=True) if limit), default=0.0)


def demand_weights(asked: Sequence[int], pressed: float = 1.0) -> list[float]:
    """Parts of a whole: what is asked for goes to who asks, and what that leaves to everybody, evenly; that is never nothing.

    So a node that begins to get requests has room for them at once, until all of a budget is wanted.
    """
    total, count = sum(asked), len(asked)
    if not total:
        return [1 / count] * count
    even = max(IDLE_PART, 1 - pressed / FULL)
    return [even / count + (1 - even) * one / total for one in asked]


def apportioned(whole: int, weights: Sequence[float]) -> list[int]:
    """Integers of this sum, as near to the weights as integers can be (largest remainder)."""
    exact = [whole * weight for weight in weights]
    parts = [int(one) for one in exact]
    order = sorted(range(len(parts)), key=lambda n: parts[n] - exact[n])
    for n in order[: max(0, whole - sum(parts))]:
        parts[n] += 1
    return parts
