"""What to tell a client when no target has room: one answer for the whole pool.

Pure. Claude Code waits for a `retry-after` of up to 60 s and gives up at once on a longer one (docs/providers/claude-code.md); so a
slot that frees up soon is told as it is, and what takes longer comes with `x-should-retry: false`. Where the providers themselves
said 429, the last one's own answer goes back, with the time that is true of the pool.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ccr_data.core.budget import Budget

SOON_S = 30
NEW_LEASE_S = 2  # until a node whose part is small has a larger one, now that it has asked
_KINDS = (b"requests", b"input-tokens", b"output-tokens")


class NoRoom(NamedTuple):
    """When to come again."""

    retry_after_s: int  # from 1
    message: str
    lines: bytes  # header lines; each ends in CRLF

    @property
    def is_soon(self) -> bool:
        """Whether waiting for it is worth while."""
        return self.retry_after_s <= SOON_S


def no_room(budgets: Sequence[Budget], size_bytes: int, now_s: float, unix_s: float) -> NoRoom:
    """The answer of a pool with these budgets (repeated ones count once), at least one."""
    pool = list(dict.fromkeys(budgets))
    wait_s = retry_after_s(pool, size_bytes, now_s)
    accounts = "the account" if len(pool) == 1 else f"all {len(pool)} accounts"
    verb = "is" if len(pool) == 1 else "are"
    message = f"{accounts} for this model {verb} at the rate limit; there is room again in {wait_s} s"
    lines = b"retry-after: %d\r\n%b%b" % (
        wait_s,
        b"" if wait_s <= SOON_S else b"x-should-retry: false\r\n",
        _rate_limit_lines(pool, now_s, unix_s),
    )
    return NoRoom(wait_s, message, lines)


def retry_after_s(budgets: Sequence[Budget], size_bytes: int, now_s: float) -> int:
    """Whole seconds, from 1, until the first of the budgets has room. A node of small part is to be asked soon again."""
    wait_s = min(budget.room_in_s(size_bytes, now_s) for budget in budgets)
    for budget in budgets:
        if wait_s <= NEW_LEASE_S:
            break
        if budget.is_part_small:
            wait_s = min(wait_s, max(NEW_LEASE_S, budget.room_with_all_in_s(size_bytes, now_s)))
    return max(1, math.ceil(wait_s)) if math.isfinite(wait_s) else NEW_LEASE_S


def _rate_limit_lines(pool: Sequence[Budget], now_s: float, unix_s: float) -> bytes:
    """Sums over the pool, of each kind that all of it is limited in."""
    lines = []
    levels = [budget.levels(now_s) for budget in pool]
    for kind, found in zip(_KINDS, zip(*levels, strict=True), strict=True):
        if all(limit for limit, _, _ in found):
            reset = datetime.fromtimestamp(math.ceil(unix_s + max(full_s for _, _, full_s in found)), UTC)
            lines.append(
                b"anthropic-ratelimit-%b-limit: %d\r\nanthropic-ratelimit-%b-remaining: %d\r\n"
                b"anthropic-ratelimit-%b-reset: %b\r\n"
                % (
                    kind,
                    sum(limit for limit, _, _ in found),
                    kind,
                    sum(left for _, left, _ in found),
                    kind,
                    reset.strftime("%Y-%m-%dT%H:%M:%SZ").encode(),
                )
            )
    return b"".join(lines)


def told_for_pool(lines: Sequence[bytes], special: Mapping[bytes, bytes], wait_s: int) -> list[bytes]:
    """Header lines of a provider's 429 with the pool's `retry-after`; as they came if that is what they say already."""
    if special.get(b"retry-after") == b"%d" % wait_s:
        return list(lines)
    kept = [line for line in lines if not line.lower().startswith((b"retry-after:", b"x-should-retry:"))]
    kept.append(b"retry-after: %d" % wait_s)
    if wait_s > SOON_S:
        kept.append(b"x-should-retry: false")
    return kept
