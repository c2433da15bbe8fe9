"""Amounts that rate limits are about: allowed, used, left.

Plain values, apart from the budgets that count by them (core/budget.py), because files hold some: msgspec makes decoders of these
classes (docs/adr/0017-compiled-hot-path.md).
"""

from __future__ import annotations

from typing import NamedTuple

WINDOW_S = 60.0  # a minute
Scope = tuple[str, str]  # provider, and the account there
Slot = tuple[int, int, int, int]
"""A quarter of a second by its number, and what was used in it: requests, input, output."""


class Allowance(NamedTuple):
    """Amounts of a minute. As a limit, 0 means that there is none."""

    requests: int = 0
    input: int = 0  # tokens, cache reads excluded
    output: int = 0
    tokens: int = 0  # input and output together


NO_LIMITS = Allowance()


def lower(one: Allowance, other: Allowance) -> Allowance:
    """What both limits allow."""
    return Allowance(*(min(a, b) if a and b else a or b for a, b in zip(one, other, strict=True)))


def higher(one: Allowance, other: Allowance) -> Allowance:
    """Two statements about one limit: the larger counts."""
    return Allowance(*(max(a, b) for a, b in zip(one, other, strict=True)))


def plus(one: Allowance, other: Allowance) -> Allowance:
    """Both together."""
    return Allowance(*(a + b for a, b in zip(one, other, strict=True)))


def less(one: Allowance, other: Allowance) -> Allowance:
    """What is left of one without the other; at least nothing."""
    return Allowance(*(max(0, a - b) for a, b in zip(one, other, strict=True)))


class Spent(NamedTuple):
    """What was used of a budget within its last minute, and the lease it was used by."""

    scope: Scope
    model_class: str
    used: Allowance
    lease: Allowance | None
    serial: int  # of the lease


class Learned(NamedTuple):
    """What is known of a budget's limits that no configuration says."""

    scope: Scope
    model_class: str
    leased_of: Allowance  # the limits that its lease is a part of
    told: Allowance  # the limits that answers told
    left: tuple[int, int, int] | None  # of the account's requests, input and output, by now; None: no answer told
    taken: tuple[int, int, int]  # how much less than its part of that is left for this node


class Handed(NamedTuple):
    """What a worker tells of a budget when another one takes its place."""

    scope: Scope
    model_class: str
    used: list[Slot]
    kept: Allowance  # what it may yet use
    open_count: int = 0  # of a client: requests that are not over
