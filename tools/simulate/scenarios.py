"""Plans: fleets of any size with random troubles, and the scripted ones that hold the bars.

A seed and the sizes say all: the same ones give the same plan, and the same plan the same run.
"""

from __future__ import annotations

from random import Random

from simulate.plans import Crash, Crowd, Messages, Plan, Policy, ProviderPlan, ScopePlan, Spell, Trouble

TROUBLES: tuple[Trouble, ...] = ("down", "errors", "overloaded", "slow", "hangs", "stream_errors", "cuts", "refuses")
_FACTORS = (1.0, 1.1, 0.8, 1.3, 0.9, 1.2)
SETTLE_S = 150.0  # at the end of a fleet's run: the last answers, probes and batches


def fleet(
    seed: int,
    policy: Policy = "sticky",
    *,
    nodes: int = 8,
    scopes: int = 12,
    sessions: int = 2_000,
    minutes: float = 20.0,
    mean_turns: float = 8.0,
    load: float = 0.7,
    troubles: float = 1.0,
    is_rough: bool = True,
    is_checked_often: bool = False,
) -> Plan:
    """A fleet under random load and troubles.

    `load` is the demand as a share of what the accounts allow, `troubles` how many spells there are for each provider, on average.
    """
    draw = Random(f"{seed} fleet")  # noqa: S311
    busy_s = minutes * 60.0
    # What sessions go on after the last of them has begun is part of the demand; half of them are soon over.
    demand = sessions * mean_turns / minutes
    providers = _providers(draw, scopes, demand / load)
    names = [one.name for one in providers]
    spells, crashes = [], []
    for name in names:
        for _ in range(_count(draw, troubles)):
            from_s = draw.uniform(0.05, 0.8) * busy_s
            spells.append(Spell(name, draw.choice(TROUBLES), from_s, from_s + draw.uniform(15, min(240, busy_s / 4))))
    if is_rough:
        crashes += [
            Crash("control", draw.uniform(0.1, 0.8) * busy_s, draw.uniform(0.5, 40)) for _ in range(_count(draw, 1.0))
        ]
        for _ in range(_count(draw, min(6.0, nodes * 0.15))):
            crashes.append(Crash(f"n{draw.randrange(nodes)}", draw.uniform(0.1, 0.8) * busy_s, draw.uniform(0.3, 20)))
    messages = Messages(draw.choice((0.001, 0.02, 0.2)), draw.choice((0.0, 0.005, 0.03)), draw.choice((0.0, 0.02, 0.1)))
    return Plan(
        seed=seed,
        until_s=busy_s + SETTLE_S,
        providers=providers,
        crowds=_crowds(draw, sessions, busy_s, mean_turns),
        nodes=nodes,
        workers=min(nodes, draw.choice((1, 2, 4))),
        policy=policy,
        messages=messages if is_rough else Messages(),
        spells=tuple(sorted(spells, key=lambda one: one.from_s)),
        crashes=tuple(sorted(crashes, key=lambda one: one.at_s)),
        is_checked_often=is_checked_often,
        status_every_s=5.0 if nodes > 32 else 0.0,
        settle_s=SETTLE_S,
    )


def _count(draw: Random, mean: float) -> int:
    """A number of events, Poisson."""
    count, left = 0, draw.expovariate(1.0)
    while left < mean:
        count += 1
        left += draw.expovariate(1.0)
    return count


def _providers(draw: Random, scopes: int, capacity: float) -> tuple[ProviderPlan, ...]:
    """Accounts of unlike size and kind that allow `capacity` requests a minute together, a few to a provider."""
    weights = [draw.uniform(0.5, 1.5) for _ in range(scopes)]
    plans: list[ScopePlan] = []
    for weight in weights:
        rpm = max(5, round(capacity * weight / sum(weights)))
        kind = draw.random()
        plans.append(
            ScopePlan(
                f"s{len(plans)}",
                rpm=rpm,
                itpm=rpm * 9_000 if draw.random() < 0.3 else 0,
                counting="bucket" if kind < 0.4 else "window",
                keys=2 if draw.random() < 0.2 else 1,
                is_configured=kind > 0.15,
            )
        )
    found: list[ProviderPlan] = []
    while plans:
        size = min(len(plans), draw.choice((1, 2, 3)) if scopes < 40 else 10)
        number = len(found)
        own, plans = tuple(plans[:size]), plans[size:]
        found.append(ProviderPlan(f"p{number}", own, _FACTORS[number % len(_FACTORS)], draw.uniform(0.5, 1.6)))
    return tuple(found)


def _crowds(draw: Random, sessions: int, busy_s: float, mean_turns: float) -> tuple[Crowd, ...]:
    """Most come evenly, a part of them in a wave."""
    wave = draw.uniform(0.2, 0.5) * busy_s
    return (
        Crowd(sessions - sessions // 8, 0.0, busy_s * 0.85, mean_turns),
        Crowd(sessions // 8, wave, wave + busy_s * 0.15, mean_turns),
    )


# --- the bars ---------------------------------------------------------------------------------------------------------

BUSY_S = 1020.0  # in which the two scopes are asked for more than they have
SHIFT_S = 300.0


def two_scopes(seed: int, nodes: int) -> Plan:
    """Half as much again as two accounts of 60 requests a minute allow, for fifteen minutes."""
    return Plan(
        seed=seed,
        until_s=BUSY_S,
        providers=(ProviderPlan("p", (ScopePlan("org-a", 60), ScopePlan("org-b", 60))),),
        crowds=(Crowd(3060, 0.0, BUSY_S, fixed_turns=1),),
        nodes=nodes,
        workers=nodes,
        policy="random",
        warm_up_s=120.0,
    )


def two_keys(seed: int) -> Plan:
    """Two keys of one account."""
    return Plan(
        seed=seed,
        until_s=720.0,
        providers=(ProviderPlan("p", (ScopePlan("org", 60, keys=2),)),),
        crowds=(Crowd(1200, 0.0, 660.0, fixed_turns=1),),
        nodes=2,
        workers=2,
        policy="random",
        warm_up_s=120.0,
    )


def refusals(seed: int) -> Plan:
    """An upstream that answers 400 to everything, for an hour."""
    return Plan(
        seed=seed,
        until_s=3700.0,
        providers=(ProviderPlan("p", (ScopePlan("a"),)), ProviderPlan("q", (ScopePlan("b"),))),
        crowds=(Crowd(1500, 0.0, 3600.0, fixed_turns=2, can_pause=False),),
        nodes=2,
        workers=2,
        policy="random",
        spells=(Spell("p", "refuses", 0.0, 3700.0),),
    )


def dying(seed: int) -> Plan:
    """One of two providers dies under load and comes back after three minutes."""
    return Plan(
        seed=seed,
        until_s=900.0,
        providers=(ProviderPlan("p", (ScopePlan("a"),)), ProviderPlan("q", (ScopePlan("b"),))),
        crowds=(Crowd(3000, 2.0, 700.0, fixed_turns=2, can_pause=False),),
        nodes=4,
        workers=4,
        policy="random",
        spells=(Spell("p", "errors", 300.0, 480.0),),
    )


STRATEGIES = (
    "simple-shuffle",
    "round-robin",
    "weighted-round-robin",
    "failover",
    "least-loaded",
    "cost-based",
    "latency-based",
    "model-based",
)


def long_session(seed: int, strategy: str) -> Plan:
    """One conversation of 30 turns among others, and room for all of them."""
    return Plan(
        seed=seed,
        until_s=1900.0,
        providers=(
            ProviderPlan("p", (ScopePlan("a"), ScopePlan("b")), first_byte_s=0.8),
            ProviderPlan("q", (ScopePlan("c"), ScopePlan("d")), price_factor=1.1, first_byte_s=1.0),
        ),
        crowds=(
            Crowd(1, 2.0, 3.0, fixed_turns=30, can_pause=False),
            Crowd(40, 0.0, 900.0, fixed_turns=12, can_pause=False),
        ),
        nodes=2,
        workers=2,
        policy="sticky",
        strategy=strategy,
    )


def shift(seed: int, nodes: int = 8) -> Plan:
    """All the demand moves from one half of the machines to the other, after five minutes."""
    half = nodes // 2
    first, second = tuple(range(half)), tuple(range(half, nodes))
    return Plan(
        seed=seed,
        until_s=2 * SHIFT_S,
        providers=(ProviderPlan("p", (ScopePlan("a", 600), ScopePlan("b", 600))),),
        crowds=(
            Crowd(5000, 0.0, SHIFT_S, fixed_turns=1, machines=first),
            Crowd(5000, SHIFT_S, 2 * SHIFT_S, fixed_turns=1, machines=second),
        ),
        nodes=nodes,
        policy="random",
    )
