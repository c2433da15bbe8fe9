"""The newest rate-limit headers of each key, kept for the budgets to come.

Pure and bounded: headers come from upstreams, and nobody promises how many or how long they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MAX_KEYS = 4096
"""Keys remembered; beyond it the one that was seen first is dropped."""

MAX_HEADERS = 64
"""Headers kept of one answer."""

MAX_VALUE_CHARS = 256
"""A header's name or value is cut here."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """Rate-limit headers of one answer; `seen_at_s` is seconds since 1970."""

    seen_at_s: float
    status: int
    headers: Mapping[str, str]


class Sightings:
    """The newest sighting of each key, by (provider, key label)."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], Sighting] = {}

    def note(self, provider: str, key_label: str, sighting: Sighting) -> None:
        """Keep a sighting unless a newer one is known."""
        known = self._newest.get((provider, key_label))
        if known is not None and known.seen_at_s > sighting.seen_at_s:
            return
        if known is None and len(self._newest) >= MAX_KEYS:
            del self._newest[next(iter(self._newest))]
        few = dict(list(sighting.headers.items())[:MAX_HEADERS])
        short = {name[:MAX_VALUE_CHARS]: value[:MAX_VALUE_CHARS] for name, value in few.items()}
        self._newest[provider, key_label] = Sighting(sighting.seen_at_s, sighting.status, short)

    def newest(self, provider: str, key_label: str) -> Sighting | None:
        """The newest sighting of a key."""
        return self._newest.get((provider, key_label))
