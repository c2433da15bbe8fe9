"""Model names and patterns: which pattern fits a name, and which of several fits best.

`*` stands for any run of characters; everything else is literal and case-sensitive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def fits(pattern: str, name: str) -> bool:
    """Whether the whole name matches the pattern."""
    star = pattern.find("*")
    if star < 0:
        return pattern == name
    if star == len(pattern) - 1:
        return name.startswith(pattern[:star])
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), name, re.DOTALL) is not None


def fits_any(patterns: Iterable[str], name: str) -> bool:
    """Whether the name matches at least one of the patterns."""
    return any(fits(pattern, name) for pattern in patterns)


def best_fit(rules: Sequence[tuple[str, str]], name: str) -> str | None:
    """What the most specific fitting rule maps the name to; None if no rule fits.

    Most specific: no `*` at all, else the most literal characters, else the first in order.
    """
    fitting = [(pattern, mapped) for pattern, mapped in rules if fits(pattern, name)]
    if not fitting:
        return None
    return max(fitting, key=lambda rule: ("*" not in rule[0], len(rule[0]) - rule[0].count("*")))[1]
