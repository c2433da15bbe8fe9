"""Patterns of model names: `*` stands for any run of characters, everything else for itself.

Pure. The same rule as the data plane's (snapshot.proto, Route.models).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

_T = TypeVar("_T")


def fits(pattern: str, name: str) -> bool:
    """Whether the name is one that the pattern means. Linear in the name, whatever the pattern."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    last = rest.pop()
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    start, end = len(first), len(name) - len(last)
    for part in rest:
        found = name.find(part, start, end)
        if found < 0:
            return False
        start = found + len(part)
    return True


def covers(wide: str, narrow: str) -> bool:
    """Whether every name that `narrow` fits is one that `wide` fits."""
    return fits(wide, narrow)  # a `*` of `narrow` can only fall inside a `*` of `wide`: it equals no other character


def is_exact(pattern: str) -> bool:
    """Whether the pattern means one name only."""
    return "*" not in pattern


def best(rules: Iterable[tuple[str, _T]], name: str) -> _T | None:
    """What the most specific fitting pattern stands for: without a `*`, else with the most literal characters, else the first."""
    fitting = [(pattern, meant) for pattern, meant in rules if fits(pattern, name)]
    if not fitting:
        return None
    return max(fitting, key=lambda rule: (is_exact(rule[0]), len(rule[0]) - rule[0].count("*")))[1]
