"""When are people told that something is nearly or wholly used? Once, and again only after it was well below.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from ccr_control.core.events import Event

Level = Literal["near", "reached"]
_RANKS: dict[Level | None, int] = {None: 0, "near": 1, "reached": 2}

CALM_BELOW = 0.8
"""Of the share at which people are told: below it, they are told again the next time."""

SENT_AFTER_S = 30.0
"""An alert that is older was sent, or given up, before a control plane ended. A younger one is told again: it may not have been."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that people should know."""

    resource: str
    level: Level
    share: float


@dataclass(slots=True)
class Alerts:
    """What people have been told."""

    _told: dict[str, Level] = field(default_factory=dict)

    def resume(self, events: Iterable[Event], now_s: float) -> None:
        """Take what an earlier life has told of budgets that are the same still: this day's and this month's. Oldest first."""
        now = datetime.fromtimestamp(now_s, UTC)
        for event in events:
            at = datetime.fromtimestamp(event.at_s, UTC)
            is_this_one = {"day": at.date() == now.date(), "month": (at.year, at.month) == (now.year, now.month)}
            if is_this_one.get(event.resource.rpartition("/budget/")[2]) and now_s - event.at_s > SENT_AFTER_S:
                match event.action:
                    case "budget.near":
                        self._told[event.resource] = "near"
                    case "budget.reached":
                        self._told[event.resource] = "reached"

    def new(self, shares: Mapping[str, float], near: float) -> list[Alert]:
        """What to tell of things of which so much is used: all of them, or they are forgotten. `near` is in (0, 1]."""
        self._told = {resource: level for resource, level in self._told.items() if resource in shares}
        found = []
        for resource, share in shares.items():
            level: Level | None = "reached" if share >= 1 else "near" if share >= near else None
            told = self._told.get(resource)
            if _RANKS[level] > _RANKS[told]:
                assert level is not None, "nothing ranks below it"
                self._told[resource] = level
                found.append(Alert(resource, level, share))
            elif told is not None and share < near * CALM_BELOW:
                del self._told[resource]
        return found
