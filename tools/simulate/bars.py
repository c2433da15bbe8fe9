"""The bars that a simulation can hold: each a scripted run, a figure and what it has to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from simulate import scenarios
from simulate.plans import Spell
from simulate.sessions import Ending, Turn
from simulate.world import World

LIMIT = 60


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the report."""

    name: str
    found: str
    wanted: str
    holds: bool


def bars(seed: int) -> Iterator[Bar]:
    """All of them, one after the other."""
    for run in RUNS.values():
        yield from run(seed)


def _two_scopes(nodes: int, seed: int) -> Iterator[Bar]:
    plan = scenarios.two_scopes(seed, nodes)
    world = World(plan).run()
    accounts = [account.tally for upstream in world.upstreams.values() for account in upstream.accounts.values()]
    share = sum(one.served_warm for one in accounts) / (2 * LIMIT * (scenarios.BUSY_S - plan.warm_up_s) / 60.0)
    refused = world.limited() / max(1, world.arrived())
    peak = max(one.peak for one in accounts)
    name = f"two scopes of 60 rpm, {nodes} node{'s' if nodes > 1 else ''}"
    yield Bar(f"{name}: share of 120 rpm served", f"{share:.1%}", "≥ 97 %", share >= 0.97)
    yield Bar(f"{name}: 429 by the provider", f"{refused:.2%}", "< 1 %", refused < 0.01)
    yield Bar(f"{name}: most in a sliding minute", str(peak), f"≤ {LIMIT}", peak <= LIMIT)


def _two_keys(seed: int) -> Iterator[Bar]:
    world = World(scenarios.two_keys(seed)).run()
    tally = world.upstreams["p"].accounts["org"].tally
    holds = tally.peak <= LIMIT and not tally.limited_requests
    yield Bar("two keys of one scope: most in a sliding minute", str(tally.peak), f"≤ {LIMIT}", holds)


def _refusals(seed: int) -> Iterator[Bar]:
    world = World(scenarios.refusals(seed)).run()
    openings = world.openings
    refused = world.clients.seen.refused
    yield Bar(
        f"an hour of 400s ({refused} of them): circuits opened", str(openings), "0", not openings and refused > 500
    )


def _dying(seed: int) -> Iterator[Bar]:
    world = World(scenarios.dying(seed)).run()
    failed = world.clients.seen.endings["failed"]
    slowest_ms = max(world.passing_s, default=1e9) * 1000
    is_back = any(sample.attempts_by["p"] for sample in world.samples if sample.at_s > 600)
    yield Bar("a provider dies under load: failures that clients see", str(failed), "0", not failed)
    yield Bar(
        "… from the failure that opens to the last node passing it by",
        f"{slowest_ms:.0f} ms",
        "≤ 100 ms",
        slowest_ms <= 100,
    )
    yield Bar("… it gets requests again after it is back", "yes" if is_back else "no", "yes", is_back)


class _Watch:
    """The turns of one session."""

    def __init__(self, world: World, number: int) -> None:
        self.turns: list[tuple[float, Ending]] = []
        self._number = number
        self.home: list[tuple[float, tuple[str, str]]] = []
        world.clients.on_served.append(self._served)

    def _served(self, turn: Turn, ending: Ending) -> None:
        if turn.session.number == self._number:
            self.turns.append((ending.arrived_s, ending))
            if turn.session.home is not None:
                self.home.append((ending.arrived_s, turn.session.home))

    def cache_share(self) -> float:
        """Cached tokens that it read, as a share of what a direct connection would have read."""
        direct = sum(ending.direct_read for _, ending in self.turns)
        return sum(ending.cache_read for _, ending in self.turns) / max(1, direct)

    def cold_after(self, at_s: float, prefix: int) -> int:
        """Turns that a direct connection would have found warm, and that were not."""
        return sum(
            ending.direct_read > prefix and ending.cache_read <= prefix
            for arrived_s, ending in self.turns
            if arrived_s >= at_s
        )


def _long_sessions(seed: int) -> Iterator[Bar]:
    shares, cold = [], []
    for strategy in scenarios.STRATEGIES:
        plan = scenarios.long_session(seed, strategy)
        world = World(plan)
        watch = _Watch(world, 0)
        world.run()
        shares.append(watch.cache_share())
        at_s = watch.turns[len(watch.turns) // 2][0] + 0.5
        provider, label = next(home for arrived_s, home in reversed(watch.home) if arrived_s < at_s)
        dying = World(replace(plan, spells=(Spell(provider, "dead", at_s, 1e9, label),)))
        watch = _Watch(dying, 0)
        dying.run()
        cold.append(watch.cold_after(at_s, plan.crowds[0].prefix))
    yield Bar(
        f"30 turns, {len(shares)} strategies: cached tokens read, of a direct connection's",
        f"{min(shares):.2%}",
        "≥ 99 %",
        min(shares) >= 0.99,
    )
    found = sorted(set(cold))
    yield Bar("… cold turns after the pinned scope has died", "/".join(map(str, found)), "1", found == [1])


def _shift(seed: int) -> Iterator[Bar]:
    world = World(scenarios.shift(seed)).run()
    after = [sample for sample in world.samples if sample.at_s > scenarios.SHIFT_S]
    found = next((sample.at_s - scenarios.SHIFT_S for sample in after if sample.lease_error <= 0.15), None)
    told = "never" if found is None else f"{found:.0f} s"
    yield Bar(
        "demand moves to other nodes: leases have followed after", told, "≤ 90 s", found is not None and found <= 90
    )


RUNS: Mapping[str, Callable[[int], Iterator[Bar]]] = {
    "two scopes, 1 node": partial(_two_scopes, 1),
    "two scopes, 4 nodes": partial(_two_scopes, 4),
    "two keys": _two_keys,
    "refusals": _refusals,
    "dying": _dying,
    "long sessions": _long_sessions,
    "shift": _shift,
}
"""What is played for them, each by its seed."""
