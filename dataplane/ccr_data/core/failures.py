"""News of failed attempts, for the control plane's circuits: told at once, not when their requests have ended.

Pure. A request that moves on to another provider may end minutes later; what it learned about the first one must not
wait for that. Times are Unix time.
"""

from __future__ import annotations

from dataclasses import dataclass

from ccr_data.core.records import Reason

_NO_NEWS = (
    Reason.RATE_LIMITED,
    Reason.CLIENT_LEFT,
    Reason.SIGNATURE,
    Reason.NOT_THERE,
    Reason.HEDGED,
    Reason.STOPPED,
)  # of a rate, or of nobody's


@dataclass(slots=True)
class FailureSighting:
    """Attempts with one provider and key that failed for one reason. Mutable: it grows until it is told."""

    provider: str
    reason: Reason
    count: int
    first_at_s: float
    last_at_s: float
    key_label: str = ""  # empty: none, or the client's own token
    scope: str = ""


class FailureNews:
    """What has not been told yet. Bounded by the keys and reasons there are."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str, Reason], FailureSighting] = {}

    def __bool__(self) -> bool:
        return bool(self._seen)

    def note(self, provider: str, reason: Reason, at_s: float, key_label: str = "", scope: str = "") -> bool:
        """An attempt failed. Returns whether that is news."""
        if reason in _NO_NEWS:
            return False
        known = self._seen.get((provider, key_label, reason))
        if known is None:
            seen = FailureSighting(provider, reason, 1, at_s, at_s, key_label, scope)
            self._seen[provider, key_label, reason] = seen
        else:
            known.count += 1
            known.last_at_s = at_s
        return True

    def all(self) -> list[FailureSighting]:
        """Everything, in the order of the first of each."""
        return list(self._seen.values())

    def clear(self) -> None:
        """It has been told."""
        self._seen.clear()
