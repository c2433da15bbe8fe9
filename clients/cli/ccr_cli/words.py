"""How sums of money, moments and spans are written, and read from a command line.

Pure.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from ccr_cli.failure import EXIT_USAGE, Failure

_SPAN = re.compile(r"(\d+)(m|h|d|w)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def money_words(micro_usd: float) -> str:
    """`$0.0042`, `$12.34`, `$1,234.50`; a dash for nothing."""
    usd = micro_usd / 1e6
    if not usd:
        return "-"
    return f"${usd:,.2f}" if abs(usd) >= 1 else f"${usd:.4f}" if abs(usd) >= 0.00005 else "<$0.0001"


def share_words(part: float, whole: float) -> str:
    """`87 %`; a dash of nothing."""
    return f"{100 * part / whole:.0f} %" if whole else "-"


def span_of(text: str, option: str) -> timedelta:
    """`90m`, `24h`, `7d`, `2w`. Raises Failure."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise Failure(f"{option} {text}: must be a span such as 90m, 24h, 7d or 2w", EXIT_USAGE)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def moment_of(text: str, option: str, now: datetime) -> datetime:
    """A moment: a span before now (`24h`), a day in UTC (`2026-11-01`), or ISO 8601; in UTC. Raises Failure."""
    if _SPAN.fullmatch(text.strip()):
        return now - span_of(text, option)
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Failure(
            f"{option} {text}: must be a span such as 24h or 7d, a day such as 2026-11-01, or a time such as "
            "2026-11-01T08:00:00Z",
            EXIT_USAGE,
        ) from None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
