"""When is a provider passed by, and when is it tried again?

Pure. Closed → open after counted failures → half-open when its time is over → closed by a probe. What is counted are
failures of the provider: 5xx, 529, timeouts, broken connections and streams. A 4xx says something about a request, a
429 about an account and a 401 about a key; none of them counts, neither way. No user's request is spent on finding
out whether a provider is back: while a circuit is open or half-open, what requests say of it changes nothing.
Times are seconds since 1970, given by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

SLICES = 10
"""The window slides in tenths."""

COUNTED = frozenset(
    ("connect", "first_byte_timeout", "idle_timeout", "broken", "overloaded", "server_error", "stream_error")
)
"""The reasons of failed attempts (usage.proto) that count."""


@dataclass(frozen=True, slots=True)
class CircuitPolicy:
    """When a circuit opens and for how long."""

    failures: int = 5  # in a row
    failure_rate: float = 0.5  # of the requests within the window, if there are at least `min_requests`; (0, 1]
    min_requests: int = 20
    window_s: float = 30.0
    open_for_s: float = 30.0
    max_open_for_s: float = 300.0


class Slice(NamedTuple):
    """Attempts within a tenth of the window."""

    number: int
    answered: int
    failed: int


@dataclass(frozen=True, slots=True)
class Closed:
    """Requests go there."""

    since_s: float
    openings: int = 0  # how often it has opened in close succession before
    in_a_row: int = 0
    run_began_s: float = 0.0  # the first of the failures in a row
    tally: tuple[Slice, ...] = ()  # ascending


@dataclass(frozen=True, slots=True)
class Open:
    """Requests pass it by, and it is left alone."""

    since_s: float
    until_s: float
    openings: int
    reason: str


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """Requests pass it by; the next probe that finds it alive closes it."""

    since_s: float
    openings: int
    reason: str  # why it had opened


Circuit: TypeAlias = Closed | Open | HalfOpen


@dataclass(frozen=True, slots=True)
class Failures:
    """Attempts with one provider that failed for one reason, in close succession."""

    provider: str
    reason: str
    count: int
    began_s: float  # when the first failed
    ended_s: float  # when the last failed
    in_a_row: int  # at least so many of them had no success in between


@dataclass(frozen=True, slots=True)
class Successes:
    """Requests that a provider answered."""

    provider: str
    count: int
    answered_s: float  # when the last answer began


def after_failures(circuit: Circuit, policy: CircuitPolicy, failures: Failures, now_s: float) -> Circuit:
    """The circuit after failures that count. Those from before it closed, or older than the window, say nothing."""
    if not isinstance(circuit, Closed) or failures.reason not in COUNTED:
        return circuit
    if failures.ended_s < max(circuit.since_s, now_s - policy.window_s):
        return circuit
    tally = counted(circuit.tally, policy, now_s, failed=failures.count)
    in_a_row = circuit.in_a_row + failures.in_a_row
    if in_a_row >= policy.failures or is_rate_reached(tally, policy):
        return opened(circuit, policy, failures.reason, now_s)
    began_s = min(circuit.run_began_s, failures.began_s) if circuit.in_a_row else failures.began_s
    return replace(circuit, in_a_row=in_a_row, run_began_s=began_s, tally=tally)


def after_successes(circuit: Circuit, policy: CircuitPolicy, successes: Successes, now_s: float) -> Circuit:
    """The circuit after answers. One that had begun before the failures in a row does not end their row.

    (A provider may refuse every new request while its old streams go on to their end.)
    """
    if not isinstance(circuit, Closed) or successes.answered_s < now_s - policy.window_s:
        return circuit
    tally = counted(circuit.tally, policy, now_s, answered=successes.count)
    if successes.answered_s < circuit.run_began_s:
        return replace(circuit, tally=tally)
    return replace(circuit, in_a_row=0, run_began_s=0.0, tally=tally)


def after_waiting(circuit: Circuit, now_s: float) -> Circuit:
    """The circuit as time passes: half-open when its time is over."""
    if isinstance(circuit, Open) and (now_s >= circuit.until_s or now_s < circuit.since_s):  # or the clock was put back
        return HalfOpen(now_s, circuit.openings, circuit.reason)
    return circuit


def after_probe(circuit: Circuit, *, is_alive: bool, now_s: float) -> Circuit:
    """The circuit after a probe: it closes a half-open one, and changes nothing else."""
    if isinstance(circuit, HalfOpen) and is_alive:
        return Closed(now_s, circuit.openings)
    return circuit


def opened(closed: Closed, policy: CircuitPolicy, reason: str, now_s: float) -> Open:
    """Open for twice as long as the time before, if that was a short time ago."""
    is_again = closed.openings > 0 and now_s - closed.since_s < policy.max_open_for_s
    openings = closed.openings + 1 if is_again else 1
    return Open(now_s, now_s + open_for_s(policy, openings), openings, reason)


def open_for_s(policy: CircuitPolicy, openings: int) -> float:
    """How long a circuit stays open the first, second, … time."""
    longest_s = max(policy.open_for_s, policy.max_open_for_s)
    return min(policy.open_for_s * 2.0 ** min(openings - 1, 64), longest_s)


def counted(
    tally: tuple[Slice, ...], policy: CircuitPolicy, now_s: float, *, answered: int = 0, failed: int = 0
) -> tuple[Slice, ...]:
    """The tally of the window that ends now, with more attempts in it."""
    number = int(now_s * SLICES / policy.window_s)
    kept = tuple(one for one in tally if number - SLICES < one.number <= number)
    if kept and kept[-1].number == number:
        last = kept[-1]
        return (*kept[:-1], Slice(number, last.answered + answered, last.failed + failed))
    return (*kept, Slice(number, answered, failed))


def is_rate_reached(tally: tuple[Slice, ...], policy: CircuitPolicy) -> bool:
    """Whether so many attempts within the window failed that it should open."""
    failed = sum(one.failed for one in tally)
    attempts = failed + sum(one.answered for one in tally)
    return attempts >= policy.min_requests and failed >= policy.failure_rate * attempts
