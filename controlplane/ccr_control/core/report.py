"""Reports of what was used and what it cost: by which dimensions, of which hours, and how many lines.

Pure. Lines are whole sums, so that they add up to their total to the token and to the millionth of a dollar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ccr_control.core.errors import Malformed
from ccr_control.core.ledger import OTHER, Counters

Dimension = Literal[
    "client", "provider", "scope", "key", "model", "session", "request_class", "hour", "day", "endpoint", "agent"
]
DETAILED: frozenset[Dimension] = frozenset(("session", "agent", "request_class"))
"""Dimensions that are known of the last day only."""
TIMES: tuple[Dimension, ...] = ("hour", "day")

MAX_DIMENSIONS = 3
MAX_LINES = 10_000
LINES_UNLESS_SAID = 100
DETAIL_HOURS = 24


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the ledger. Hours are since 1970, UTC; `until_hour` is not included."""

    since_hour: int
    until_hour: int
    by: tuple[Dimension, ...] = ()
    where: tuple[tuple[Dimension, str | int], ...] = ()

    @property
    def needs_detail(self) -> bool:
        """Whether it asks for what only the last day knows."""
        return any(one in DETAILED for one in self.by) or any(one in DETAILED for one, _ in self.where)


@dataclass(frozen=True, slots=True)
class Line:
    """Sums under one value for each dimension asked for. Hours and days are numbers since 1970."""

    values: tuple[str | int, ...]
    counters: Counters


@dataclass(frozen=True, slots=True)
class Report:
    """Lines with the words that people read, and their sum."""

    lines: tuple[tuple[tuple[str, ...], Counters], ...]
    total: Counters


def question(
    by: Sequence[Dimension],
    where: Sequence[tuple[Dimension, str]],
    since_s: float | None,
    until_s: float | None,
    now_s: float,
) -> Question:
    """A question that the ledger can answer. Times that are not whole hours begin and end with theirs.

    Raises Malformed.
    """
    if len(by) > MAX_DIMENSIONS:
        raise Malformed("TOO_MANY_DIMENSIONS", f"by: at most {MAX_DIMENSIONS} dimensions, not {len(by)}")
    if len({*by}) < len(by):
        raise Malformed("DIMENSION_TWICE", "by: each dimension only once")
    this_hour = int(now_s) // 3600
    since = this_hour - DETAIL_HOURS if since_s is None else int(since_s) // 3600
    until = this_hour + 1 if until_s is None else -(-int(until_s) // 3600)
    asked = Question(since, until, tuple(by), tuple((name, _wanted(name, value)) for name, value in where))
    if asked.needs_detail and since < this_hour - DETAIL_HOURS:
        raise Malformed(
            "TOO_OLD",
            f"sessions, agents and request classes are known of the last {DETAIL_HOURS} hours only: ask since then",
        )
    return asked


def _wanted(name: Dimension, value: str) -> str | int:
    if name not in TIMES:
        return value
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise Malformed("BAD_TIME", f"where: a {name} is written as {_LOOKS[name]}, not {value!r}") from None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return int(at.timestamp()) // (3600 if name == "hour" else 86_400)


_LOOKS = {"hour": "2026-11-21T13:00:00Z", "day": "2026-11-21"}


def shown(name: Dimension, value: str | int) -> str:
    """A value as people and scripts read it."""
    if name == "hour":
        return datetime.fromtimestamp(int(value) * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if name == "day":
        return datetime.fromtimestamp(int(value) * 86_400, UTC).strftime("%Y-%m-%d")
    return str(value)


def arranged(lines: Sequence[Line], by: Sequence[Dimension], limit: int) -> Report:
    """The report: by time if that is asked for first, else the most expensive first; beyond `limit` one line "other".

    Raises Malformed.
    """
    if not 0 <= limit <= MAX_LINES:
        raise Malformed("BAD_LIMIT", f"limit: 0 to {MAX_LINES}, not {limit}")
    limit = limit or LINES_UNLESS_SAID
    total = Counters()
    for line in lines:
        total.add(line.counters)
    if not by:
        return Report((((), total),) if lines else (), total)
    dearest = sorted(lines, key=_dearest_first)
    kept, rest = (dearest, []) if len(dearest) <= limit else (dearest[: limit - 1], dearest[limit - 1 :])
    if by[0] in TIMES:
        kept = sorted(kept, key=lambda line: (int(line.values[0]), *_dearest_first(line)))
    told = [(tuple(map(shown, by, line.values)), line.counters) for line in kept]
    if rest:
        other = Counters()
        for line in rest:
            other.add(line.counters)
        told.append(((OTHER,) * len(by), other))
    return Report(tuple(told), total)


def _dearest_first(line: Line) -> tuple[int, int, int, tuple[str, ...]]:
    counters = line.counters
    tokens = counters.input_tokens + counters.output_tokens
    return (-counters.cost_micro_usd, -counters.requests, -tokens, tuple(map(str, line.values)))
