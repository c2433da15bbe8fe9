"""What is going to happen: a fleet, and for each seed an episode of load and faults. Pure: the same seed, the same plan.

Seeds share fleets: those of one group of `SEEDS_OF_A_FLEET` play one after another on the same processes, whose state goes on
from one to the next as it would in a long life.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

SEEDS_OF_A_FLEET = 14
NODES = ("worker-0", "worker-1")
PROVIDERS = ("ada", "bea", "cyd")
STRATEGIES = (
    "simple-shuffle",
    "round-robin",
    "weighted-round-robin",
    "failover",
    "least-loaded",
    "latency-based",
    "cost-based",
)

# What can go wrong. Each kind is one entry of episodes.ACTS.
PROCESS_FAULTS = (
    "kill control",
    "kill control",
    "stop control",
    "restart control",
    "kill worker",
    "kill worker",
    "stop worker",
    "replace worker",
    "replace worker",
    "damage worker",
    "damage control",
)
LINK_FAULTS = ("cut", "hole", "slow", "torn", "garbage")
PROVIDER_FAULTS = (
    "refuses",
    "reset in head",
    "reset in body",
    "reset in body",
    "429",
    "500",
    "529",
    "early error",
    "late error",
    "silent",
    "stalls",
)
CONFIG_FAULTS = ("edit", "edit", "half-written", "invalid", "rotate", "disable", "remove")


@dataclass(frozen=True, slots=True)
class Topology:
    """What a group of seeds shares."""

    strategy: str
    affinity: str
    queue: bool
    circuit_failures: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong at a moment of the load, and is well again after a while."""

    at_s: float  # from the beginning of the load
    for_s: float  # 0: it is over at once
    kind: str
    subject: str  # a process, a link (by its node) or a provider; empty for the configuration
    number: int = 0  # which byte, event or way of doing it

    @property
    def ends_s(self) -> float:
        """When it is over."""
        return self.at_s + self.for_s

    def __str__(self) -> str:
        return f"{self.at_s:.2f} s +{self.for_s:.2f} s: {self.kind} {self.subject} {self.number}"


@dataclass(frozen=True, slots=True)
class Episode:
    """One seed's load and faults."""

    seed: int
    load_s: float
    whole_clients: int
    stream_clients: int
    events: int  # of a stream
    gap_ms: int  # between them
    rpm_limit: int  # of the one account that is limited
    faults: tuple[Fault, ...]


def fleet_of(seed: int) -> int:
    """Which fleet a seed plays on."""
    return seed // SEEDS_OF_A_FLEET


def topology(fleet: int) -> Topology:
    """How a fleet is set up."""
    roll = random.Random(f"fleet {fleet}")
    return Topology(
        strategy=STRATEGIES[fleet % len(STRATEGIES)],
        affinity=roll.choice(("session", "session", "none")),
        queue=roll.random() < 0.3,
        circuit_failures=roll.choice((3, 5, 20)),
    )


def episode(seed: int) -> Episode:
    """What happens in a seed."""
    roll = random.Random(f"episode {seed}")
    load_s = roll.uniform(0.9, 1.5)
    faults: list[Fault] = []
    faults += _process_faults(roll, load_s)
    faults += _link_faults(roll, load_s)
    faults += _provider_faults(roll, load_s)
    faults += _config_faults(roll, load_s)
    return Episode(
        seed=seed,
        load_s=load_s,
        whole_clients=roll.randint(2, 5),
        stream_clients=roll.randint(2, 5),
        events=roll.randint(1, 12),
        gap_ms=roll.choice((0, 2, 10)),
        rpm_limit=roll.randint(4, 30),
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
    )


def _process_faults(roll: random.Random, load_s: float) -> list[Fault]:
    found = []
    for _ in range(roll.choice((0, 0, 0, 1, 1, 1, 2))):
        kind = roll.choice(PROCESS_FAULTS)
        subject = "control" if kind.endswith("control") else roll.choice(NODES)
        for_s = roll.uniform(0.1, 0.6) if kind.startswith("stop") else 0.0
        found.append(Fault(roll.uniform(0.1, load_s), for_s, kind, subject, roll.randrange(1 << 16)))
    return found


def _link_faults(roll: random.Random, load_s: float) -> list[Fault]:
    found = []
    for _ in range(roll.choice((0, 0, 1, 1, 2))):
        at_s, for_s = roll.uniform(0.0, load_s), roll.uniform(0.1, 0.8)
        kind, number = roll.choice(LINK_FAULTS), roll.randrange(1, 4000)
        for node in roll.choice((NODES, NODES[:1], NODES[1:])):
            found.append(Fault(at_s, for_s, kind, node, number))
    return found


def _provider_faults(roll: random.Random, load_s: float) -> list[Fault]:
    """Mostly at least one provider is well all the time, so that every request has somewhere to go."""
    found = []
    for provider in roll.sample(PROVIDERS, roll.choice((0, 1, 1, 2, 2, 2, 3))):
        at_s = roll.uniform(0.0, 0.3)
        while at_s < load_s:
            for_s = roll.uniform(0.1, 0.6)
            found.append(Fault(at_s, for_s, roll.choice(PROVIDER_FAULTS), provider, roll.randrange(1, 600)))
            at_s += for_s + roll.uniform(0.05, 0.5)
    return found


def _config_faults(roll: random.Random, load_s: float) -> list[Fault]:
    """One after another: there is one file."""
    found = []
    at_s = roll.uniform(0.05, 0.5)
    for _ in range(roll.choice((0, 1, 1, 2, 3))):
        kind = roll.choice(CONFIG_FAULTS)
        for_s = 0.0 if kind in ("edit", "rotate") else roll.uniform(0.1, 0.4)
        subject = roll.choice(PROVIDERS) if kind in ("disable", "rotate") else ""
        found.append(Fault(at_s, for_s, kind, subject, roll.randrange(1 << 16)))
        at_s += for_s + roll.uniform(0.1, 0.4)
        if at_s > load_s:
            break
    return found
