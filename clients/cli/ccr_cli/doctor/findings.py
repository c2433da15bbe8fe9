"""What a check found: one line for a person, with what to do about it.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str  # a fixed word for scripts
    level: Level
    found: str
    fix: str = ""  # empty: nothing to do


def ok(check: str, found: str) -> Finding:
    """As it should be."""
    return Finding(check, "ok", found)


def warn(check: str, found: str, fix: str) -> Finding:
    """It works, but probably not as meant."""
    return Finding(check, "warn", found, fix)


def fail(check: str, found: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(check, "fail", found, fix)


def skip(check: str, found: str, fix: str = "") -> Finding:
    """It was not looked at."""
    return Finding(check, "skip", found, fix)


def line(one: Finding, width: int) -> str:
    """`fail  auth  the relay wants a key → set $CCR_CLIENT_KEY`."""
    fix = f" → {one.fix}" if one.fix else ""
    return f"{one.level:<4}  {one.check:<{width}}  {one.found}{fix}"


def summary(findings: Sequence[Finding]) -> str:
    """The last line."""
    counts = {level: sum(one.level == level for one in findings) for level in ("ok", "warn", "fail", "skip")}
    if counts["fail"]:
        return f"{counts['fail']} of {len(findings)} checks failed, {counts['warn']} warn"
    rest = f", {counts['warn']} warn" if counts["warn"] else ""
    unseen = f", {counts['skip']} not looked at" if counts["skip"] else ""
    return f"all is well: {counts['ok']} checks{rest}{unseen}"
