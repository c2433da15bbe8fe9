"""When is a credential that has to be found looked for again?

Pure. Ahead of its end, a little earlier each time by chance, so that many do not ask at once; after a failure later and later, while
what was found before stays in use until it ends; at once if a provider refuses it, but not again and again. One search for a
credential at a time. Times are seconds since 1970, given by the caller; `roll` is a random number in [0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

AHEAD_S = 900.0
"""So long before its end a credential is renewed, or after half of its time if that is later."""

JITTER = 0.2
"""It is renewed earlier than that by up to this share of the rest."""

MIN_PAUSE_S = 10.0
"""Between two searches that found something, unless it lives shorter than twice that."""

FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 300.0

REFUSED_PAUSE_S = 30.0
"""A refusal does not start a search so soon after another refusal started one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one credential."""

    next_s: float  # when to look for it next, if nobody does then
    is_found: bool = False  # something was found, which may have ended since
    found_s: float = 0.0
    expires_s: float = inf  # the end of what was found
    is_sought: bool = False  # a search is under way
    refused_s: float = -inf  # the newest refusal that started a search
    failures: int = 0  # since something was found
    problem: str = ""  # of the newest search, in words for an operator; empty: none


def is_due(standing: Standing, now_s: float) -> bool:
    """Whether to look for it now."""
    return not standing.is_sought and standing.next_s <= now_s


def is_usable(standing: Standing, now_s: float) -> bool:
    """Whether what was found can be used."""
    return standing.is_found and now_s < standing.expires_s


def wakes_s(standing: Standing, now_s: float) -> float:
    """When something about it changes by itself: it is due, or it ends."""
    due_s = inf if standing.is_sought else standing.next_s
    return min(due_s, standing.expires_s) if is_usable(standing, now_s) else due_s


def begun(standing: Standing) -> Standing:
    """A search has begun. Nobody must be searching."""
    assert not standing.is_sought, "one search at a time"
    return replace(standing, is_sought=True)


def found(standing: Standing, expires_s: float | None, now_s: float, roll: float) -> Standing:
    """The search found something; `expires_s` None: it has no end."""
    end_s = inf if expires_s is None else expires_s
    if end_s <= now_s:
        return failed(standing, "what was found has expired already: is this machine's clock right?", now_s, roll)
    return Standing(
        next_s=_renewed_s(end_s, now_s, roll),
        is_found=True,
        found_s=now_s,
        expires_s=end_s,
        refused_s=standing.refused_s,
    )


def failed(standing: Standing, problem: str, now_s: float, roll: float) -> Standing:
    """The search failed. What was found before stays."""
    failures = standing.failures + 1
    pause_s = min(FIRST_RETRY_S * 2.0 ** min(failures - 1, 16), LONGEST_RETRY_S) * (1 - JITTER + 2 * JITTER * roll)
    if is_usable(standing, now_s):  # once more before it ends
        pause_s = min(pause_s, max((standing.expires_s - now_s) / 2, FIRST_RETRY_S))
    return replace(standing, is_sought=False, failures=failures, problem=problem, next_s=now_s + pause_s)


def refused(standing: Standing, now_s: float) -> Standing:
    """A provider refused it: look for it at once, unless that is happening or has just happened for the same reason."""
    if standing.is_sought or now_s < standing.refused_s + REFUSED_PAUSE_S:
        return standing
    return replace(standing, next_s=min(standing.next_s, now_s), refused_s=now_s)


def put_back(standing: Standing, now_s: float) -> Standing:
    """The standing when the clock says an earlier time than before: it is looked for at once, as nobody knows when it would be due."""
    return replace(standing, next_s=min(standing.next_s, now_s), found_s=min(standing.found_s, now_s), refused_s=-inf)


def _renewed_s(end_s: float, now_s: float, roll: float) -> float:
    left_s = end_s - now_s
    if left_s == inf:
        return inf
    ahead_s = min(AHEAD_S, left_s / 2) * (1 + JITTER * roll)
    return max(end_s - ahead_s, now_s + min(MIN_PAUSE_S, left_s / 2))
