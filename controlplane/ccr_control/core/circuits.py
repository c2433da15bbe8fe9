"""When is a provider, or one of its scopes, passed by, and when is it tried again?

Pure. Closed → open after counted failures → half-open when its time is over → closed by a probe. What is counted are
failures of the provider: 5xx, 529, timeouts, broken connections and streams. A 4xx says something about a request, a
429 about an account's rate and a 401 about a key; none of them counts here, neither way (core/health.py says what
refused keys do to a scope). Times are seconds since 1970, given by the caller.

No user's request is spent on finding out whether a provider is back. But one that was sent there all the same, for want
of anything else, and was served is proof: it closes a half-open circuit. And a provider whose probe has never been
answered with anything but server errors (a gateway without such an endpoint) cannot be found alive by probes: after
`ANSWERS_THAT_DO` of them within one half-open time, reached but not answered well, requests decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

SLICES = 10
"""The window slides in tenths."""

COUNTED = frozenset(
    (
        "connect",
        "first_byte_timeout",
        "idle_timeout",
        "broken",
        "overloaded",
        "server_error",
        "stream_error",
        "total_timeout",
    )
)
"""The reasons of failed attempts (usage.proto) that count."""

ANSWERS_THAT_DO = 3
"""Probes answered with a server error that close a half-open circuit, where no probe has ever found anything better."""


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
    row: tuple[tuple[str, int], ...] = ()  # failures in a row, by the scope they happened to; "": to none in particular
    run_began_s: float = 0.0  # the first of the failures in a row
    tally: tuple[Slice, ...] = ()  # ascending

    @property
    def in_a_row(self) -> int:
        """How many failures there were since the last success."""
        return sum(count for _, count in self.row)

    @property
    def in_a_row_shared(self) -> int:
        """The same without those of the scope that has most of them."""
        return self.in_a_row - max([count for scope, count in self.row if scope], default=0)


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
    answers: int = 0  # probes that reached it, but were answered with a server error


Circuit: TypeAlias = Closed | Open | HalfOpen


@dataclass(frozen=True, slots=True)
class Failures:
    """Attempts with one provider and key that failed for one reason, in close succession."""

    provider: str
    reason: str
    count: int
    began_s: float  # when the first failed
    ended_s: float  # when the last failed
    in_a_row: int  # at least so many of them had no success of the provider in between
    in_scope_row: int = 1  # at least so many of them had no success of their scope in between
    key_label: str = ""  # empty: none of the relay's
    scope: str = ""  # the scope of that key, where the provider has several


@dataclass(frozen=True, slots=True)
class Successes:
    """Requests that a provider answered."""

    provider: str
    count: int
    answered_s: float  # when the last answer began
    asked_s: float = 0.0  # when the last request began; 0: unknown
    key_label: str = ""


def after_failures(
    circuit: Circuit,
    policy: CircuitPolicy,
    failures: Failures,
    now_s: float,
    others: Iterable[tuple[Slice, ...]] = (),
) -> Circuit:
    """The circuit after failures that count. Those from before it closed, or older than the window, say nothing.

    A row opens it only if no single scope has all but one of its failures: failures of one scope among several are
    for that scope's own circuit. `others` are tallies of attempts that are counted elsewhere and count here, too.
    """
    if not isinstance(circuit, Closed) or not do_count(circuit, policy, failures, now_s):
        return circuit
    row = lengthened(circuit.row, failures.scope, failures.in_a_row)
    began_s = min(circuit.run_began_s, failures.began_s) if circuit.row else failures.began_s
    tally = circuit.tally if failures.scope else counted(circuit.tally, policy, now_s, failed=failures.count)
    after = replace(circuit, row=row, run_began_s=began_s, tally=tally)
    is_row_reached = after.in_a_row >= policy.failures and after.in_a_row_shared >= min(2, policy.failures)
    if is_row_reached or is_rate_reached([tally, *others], policy, now_s):
        return opened(circuit, policy, failures.reason, now_s)
    return after


def do_count(closed: Closed, policy: CircuitPolicy, failures: Failures, now_s: float) -> bool:
    """Whether failures are such as count, and young enough."""
    return failures.reason in COUNTED and failures.ended_s >= max(closed.since_s, now_s - policy.window_s)


def lengthened(row: tuple[tuple[str, int], ...], scope: str, count: int) -> tuple[tuple[str, int], ...]:
    """The row with more failures of a scope."""
    counts = dict(row)
    counts[scope] = counts.get(scope, 0) + count
    return tuple(counts.items())


def after_successes(
    circuit: Circuit, policy: CircuitPolicy, successes: Successes, now_s: float, *, is_counted: bool = True
) -> Circuit:
    """The circuit after answers. One that had begun before the failures in a row does not end their row.

    (A provider may refuse every new request while its old streams go on to their end.) A half-open circuit is closed by
    the answer to a request that began after that. `is_counted`: in this circuit's own tally.
    """
    if isinstance(circuit, HalfOpen) and successes.asked_s >= circuit.since_s:
        return Closed(now_s, circuit.openings)
    if not isinstance(circuit, Closed) or successes.answered_s < now_s - policy.window_s:
        return circuit
    tally = counted(circuit.tally, policy, now_s, answered=successes.count) if is_counted else circuit.tally
    if successes.answered_s < circuit.run_began_s:
        return replace(circuit, tally=tally)
    return replace(circuit, row=(), run_began_s=0.0, tally=tally)


def after_waiting(circuit: Circuit, now_s: float) -> Circuit:
    """The circuit as time passes: half-open when its time is over."""
    if isinstance(circuit, Open) and (now_s >= circuit.until_s or now_s < circuit.since_s):  # or the clock was put back
        return HalfOpen(now_s, circuit.openings, circuit.reason)
    return circuit


def put_back(circuit: Circuit, now_s: float) -> Circuit:
    """The circuit when the clock says an earlier time than before: nothing that has happened lies ahead.

    (Else nothing would count until the clock has caught up. An opening that lies ahead ends by `after_waiting`.)
    """
    match circuit:
        case Closed():
            since_s, began_s = min(circuit.since_s, now_s), min(circuit.run_began_s, now_s)
            return replace(circuit, since_s=since_s, run_began_s=began_s)
        case HalfOpen():
            return replace(circuit, since_s=min(circuit.since_s, now_s))
        case Open():
            return circuit


def after_probe(
    circuit: Circuit, *, is_alive: bool, now_s: float, is_answered: bool = False, is_telling: bool = True
) -> Circuit:
    """The circuit after a probe: it closes a half-open one, and changes nothing else.

    `is_answered`: it was reached, if not alive. `is_telling`: probes have found this provider alive at other times.
    """
    if not isinstance(circuit, HalfOpen):
        return circuit
    answers = circuit.answers + 1 if is_answered else circuit.answers
    if is_alive or (not is_telling and answers >= ANSWERS_THAT_DO):
        return Closed(now_s, circuit.openings)
    return replace(circuit, answers=answers)


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


def is_rate_reached(tallies: Iterable[tuple[Slice, ...]], policy: CircuitPolicy, now_s: float) -> bool:
    """Whether so many attempts within the window failed that it should open."""
    newest = int(now_s * SLICES / policy.window_s)
    young = [one for tally in tallies for one in tally if newest - SLICES < one.number <= newest]
    failed = sum(one.failed for one in young)
    attempts = failed + sum(one.answered for one in young)
    return attempts >= policy.min_requests and failed >= policy.failure_rate * attempts


def failed_in(tally: tuple[Slice, ...]) -> int:
    """How many attempts of a tally failed."""
    return sum(one.failed for one in tally)
