"""Both planes' decisions on a virtual clock, before a provider that counts exactly: what is allowed is used, no more is sent."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from ccr_control.core.leases import Amounts, BudgetName, Leases, Use
from ccr_data.core import planner
from ccr_data.core.amounts import Allowance
from ccr_data.core.budget import Lease
from ccr_data.core.limits import Limits
from ccr_data.core.records import Tokens
from support.kinds import longer
from support.routing import first_with_room

LIMIT = 60
SCOPES = (("p", "org-a"), ("p", "org-b"))
WARM_UP_S, END_S = 120.0, 1020.0


@dataclass
class Provider:
    """Counts the requests of each account in any sixty seconds, as they arrive."""

    arrived: dict[tuple[str, str], list[float]] = field(default_factory=lambda: {scope: [] for scope in SCOPES})
    refused: int = 0

    def serves(self, scope: tuple[str, str], at_s: float) -> bool:
        times = self.arrived[scope]
        if sum(one > at_s - 60 for one in times[-LIMIT:]) >= LIMIT:
            self.refused += 1
            return False
        times.append(at_s)
        return True


def reported(limits: Limits, leases: Leases, node: str, now_s: float) -> None:
    """What usage streams carry, without the streams."""
    uses = {
        BudgetName(*use.scope, use.model_class): Use(
            Amounts(*use.limits), Amounts(*use.share), Amounts(*use.used), use.asked, use.serial
        )
        for use in limits.uses(now_s)
    }
    for lease in leases.reported(node, "1", uses, now_s):
        place, share, of = lease.name, Allowance(*lease.share), Allowance(*lease.limits)
        limits.take_lease(Lease((place.provider, place.scope), place.model_class, share, lease.serial, of))


@pytest.mark.parametrize(("nodes", "busy"), [(1, 1), (4, 4), (4, 2)])
@pytest.mark.parametrize("seed", [1, *longer(2, 3)])
def test_two_accounts_are_used_to_97_percent_and_never_exceeded(nodes: int, busy: int, seed: int) -> None:
    """Clients come at random, half as many again as there is room for, and come again when they are told to; 15 minutes."""
    roll = random.Random(seed)
    provider, leases = Provider(), Leases(-10.0)
    fleet = [Limits() for _ in range(nodes)]
    for limits in fleet:
        limits.configure(dict.fromkeys(SCOPES, Allowance(requests=LIMIT)), {}, nodes)
    arrivals: list[tuple[float, int]] = []  # when, and how often the client has been told to wait
    at = 0.0
    while at < END_S:
        at += roll.expovariate(3.0)
        arrivals.append((at, 0))
    next_report = [n / nodes for n in range(nodes)]
    asked = 0
    while arrivals:
        now, refusals = heapq.heappop(arrivals)
        if now > END_S:
            break
        for n, due in enumerate(next_report):
            while due <= now:
                reported(fleet[n], leases, f"n{n}", due)
                due += 1.0  # noqa: PLW2901
            next_report[n] = due
        asked += 1
        limits = fleet[roll.randrange(busy)]
        places = [(scope, "claude-opus-4-6") for scope in roll.sample(SCOPES, 2)]
        found, part = first_with_room(limits, places, 5000, now)
        if found >= 0:
            assert part is not None
            provider.serves(places[found][0], now + roll.uniform(0.0, 0.2))
            part.settle(Tokens(input=10, output=10), now)
        elif refusals < 10:
            budgets = [limits.budget(*place) for place in places]
            wait_s = planner.retry_after_s([one for one in budgets if one], 5000, now)
            if wait_s <= planner.SOON_S:
                heapq.heappush(arrivals, (now + wait_s + roll.uniform(0.1, 0.6), refusals + 1))

    served = sum(sum(one >= WARM_UP_S for one in times) for times in provider.arrived.values())
    assert asked > 2.5 * END_S
    assert provider.refused == 0
    share = served / (2 * LIMIT * (END_S - WARM_UP_S) / 60)
    assert 0.97 <= share <= 1.001, share
