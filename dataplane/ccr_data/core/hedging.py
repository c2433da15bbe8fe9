"""May a request be sent to a second target beside a slow first one? Pure."""

from __future__ import annotations

from typing import NamedTuple


class Hedging(NamedTuple):
    """The policy."""

    after_s: float  # without content
    max_share: float  # of requests, from 0 to 1


class HedgeCredit:
    """Keeps second attempts within their share of a node's requests: each request brings a part of one, and few are saved up."""

    __slots__ = ("_credit",)

    MAX_SAVED = 10.0

    def __init__(self) -> None:
        self._credit = 0.0

    def note_request(self, max_share: float) -> None:
        """A request came that might be hedged."""
        self._credit = min(self._credit + max_share, self.MAX_SAVED)

    def take(self) -> bool:
        """Whether a request may be hedged now; that counts."""
        if self._credit < 1.0 - 1e-9:
            return False
        self._credit -= 1.0
        return True
