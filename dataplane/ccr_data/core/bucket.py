"""What the provider said is left of one kind (requests, input or output tokens): it refills evenly, up to the limit.

Pure. The provider tells of the account; a node draws from the part of it that it has of the limit. Times are seconds of the caller's
monotonic clock.
"""

from __future__ import annotations

from ccr_data.core.amounts import WINDOW_S


class Bucket:
    """A node's part of what is left of an account."""

    __slots__ = ("_limit", "_part", "_told_left", "_told_s", "at_s", "left", "rate", "size")

    def __init__(self, limit: float, told_left: float, told_s: float, left: float) -> None:
        """The account has `told_left` of `limit`; of this node's part of it, which is nothing yet (`share`), so much is left."""
        self._limit = limit
        self._told_left = told_left
        self._told_s = told_s
        self._part = 0.0
        self.left = left
        self.at_s = told_s
        self.size = 1.0
        self.rate = self.size / WINDOW_S

    def copied(self) -> Bucket:
        """The same, to be drawn from without this one noticing."""
        copied = Bucket(self._limit, self._told_left, self._told_s, self.left)
        copied._part, copied.at_s, copied.size, copied.rate = self._part, self.at_s, self.size, self.rate
        return copied

    def share(self, part: float) -> None:
        """The node's part is this from now on. What it has taken stays taken."""
        if part == self._part:
            return
        self.left += (part - self._part) * self._account_left(self.at_s)
        self._part = part
        self.size = max(self._limit * part, 1.0)
        self.rate = self.size / WINDOW_S

    def wait_s(self, need: float, now_s: float) -> float:
        """Seconds until so much is in it. What is more than it can hold has room once it is full."""
        left = self.left + (now_s - self.at_s) * self.rate
        self.left = left = min(left, self.size)
        self.at_s = now_s
        missing = min(need, self.size) - left
        return missing / self.rate if missing > 1e-9 else 0.0

    def level(self, now_s: float) -> tuple[int, int]:
        """What the account has left, and how much less than its part of that this node has."""
        self.wait_s(0.0, now_s)
        account = self._account_left(now_s)
        return round(account), round(account * self._part - self.left)

    def _account_left(self, now_s: float) -> float:
        return min(self._limit, self._told_left + (now_s - self._told_s) * self._limit / WINDOW_S)


def bucket_of(limit: int, left: int, taken: int, now_s: float) -> Bucket | None:
    """An account has so much left, of which this node has taken some since; None where there is no limit."""
    return Bucket(limit, left, now_s, -taken) if limit else None
