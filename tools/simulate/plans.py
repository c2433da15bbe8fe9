"""What is simulated: a fleet, its providers, its clients and what goes wrong. Plain values, made by `scenarios.py`.

Times are seconds of virtual time, amounts those of a minute unless a name says otherwise; 0 as a limit: none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Counting = Literal["window", "bucket"]
Trouble = Literal["down", "errors", "overloaded", "slow", "hangs", "stream_errors", "cuts", "refuses", "dead"]
Policy = Literal["random", "sticky", "cost-aware"]

POLICIES: tuple[Policy, ...] = ("random", "sticky", "cost-aware")
ROUTING: dict[Policy, tuple[str, str]] = {  # strategy, affinity
    "random": ("simple-shuffle", "none"),
    "sticky": ("simple-shuffle", "session"),
    "cost-aware": ("cost-based", "session"),
}


@dataclass(frozen=True, slots=True)
class ScopePlan:
    """An account at a provider."""

    name: str
    rpm: int = 0
    itpm: int = 0
    counting: Counting = "window"
    keys: int = 1
    is_configured: bool = True  # whether the configuration says the limits; answers do in any case


@dataclass(frozen=True, slots=True)
class ProviderPlan:
    """An upstream with accounts."""

    name: str
    scopes: tuple[ScopePlan, ...]
    price_factor: float = 1.0
    first_byte_s: float = 0.8  # typically


@dataclass(frozen=True, slots=True)
class Spell:
    """A time in which a provider is not as it should be."""

    provider: str
    kind: Trouble
    from_s: float
    until_s: float
    scope: str = ""  # only this account; empty: all


@dataclass(frozen=True, slots=True)
class Crash:
    """A process dies, and a new one takes its place."""

    who: str  # "control", or the name of a node
    at_s: float
    back_after_s: float


@dataclass(frozen=True, slots=True)
class Messages:
    """How what the planes say to each other fares."""

    delay_s: float = 0.002  # on average
    lost: float = 0.0  # share
    late: float = 0.0  # share that comes up to three seconds later, overtaken by what was sent after it


@dataclass(frozen=True, slots=True)
class Crowd:
    """Sessions that begin at random within a time."""

    sessions: int
    from_s: float
    until_s: float
    mean_turns: float = 8.0
    fixed_turns: int = 0  # instead of a random number
    model: str = "claude-sonnet-5"
    machines: tuple[int, ...] = ()  # empty: all
    think_s: float = 25.0  # on average, before a turn that a person begins
    loop_share: float = 0.75  # of turns that continue a tool loop
    can_pause: bool = True  # now and then for longer than a cache lives
    prefix: int = 14_000  # tokens of system prompt and tools
    growth: int = 900  # tokens a turn


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seed: int
    until_s: float
    providers: tuple[ProviderPlan, ...]
    crowds: tuple[Crowd, ...]
    nodes: int = 1
    workers: int = 1  # of a machine: they share pins
    policy: Policy = "sticky"
    strategy: str = ""  # instead of the policy's
    messages: Messages = Messages()
    spells: tuple[Spell, ...] = ()
    crashes: tuple[Crash, ...] = ()
    is_checked_often: bool = True  # leases after each message, rather than once a second
    status_every_s: float = 0.0  # instead of the nodes' own; for fleets of many
    settle_s: float = 0.0  # without new turns, at the end
    warm_up_s: float = 0.0  # not counted among the figures of limits
    config_lines: tuple[str, ...] = field(default=())

    @property
    def routing(self) -> tuple[str, str]:
        """Strategy and affinity, as a configuration has them."""
        strategy, affinity = ROUTING[self.policy]
        return self.strategy or strategy, affinity
