"""Circuits: what opens them, what does not, and how they close."""

from __future__ import annotations

import pytest
from ccr_control.core.circuits import (
    ANSWERS_THAT_DO,
    Circuit,
    CircuitPolicy,
    Closed,
    Failures,
    HalfOpen,
    Open,
    Successes,
    after_failures,
    after_probe,
    after_successes,
    after_waiting,
)

POLICY = CircuitPolicy(failures=5, failure_rate=0.5, min_requests=20, window_s=30, open_for_s=30, max_open_for_s=300)
NOW = 1_000_000.0


def failed(count: int, at_s: float = NOW, reason: str = "connect", in_a_row: int | None = None) -> Failures:
    return Failures("zai", reason, count, at_s, at_s, count if in_a_row is None else in_a_row)


def ok(count: int, at_s: float = NOW) -> Successes:
    return Successes("zai", count, at_s)


def after(circuit: Circuit, *evidence: Failures | Successes, now_s: float = NOW) -> Circuit:
    for one in evidence:
        step = after_failures if isinstance(one, Failures) else after_successes
        circuit = step(circuit, POLICY, one, now_s)  # type: ignore[operator]
    return circuit


def test_failures_in_a_row_open_it() -> None:
    circuit = after(Closed(0), failed(4))
    assert isinstance(circuit, Closed)
    assert after(circuit, failed(1)) == Open(NOW, NOW + 30, 1, "connect")


def test_a_success_in_between_begins_the_row_anew() -> None:
    assert isinstance(after(Closed(0), failed(4), ok(1), failed(4)), Closed)


def test_an_answer_that_began_before_the_failures_does_not_end_their_row() -> None:
    """A provider may refuse every new request while its old streams go on to their end."""
    assert isinstance(after(Closed(0), failed(4), ok(1, NOW - 5), failed(1)), Open)


def test_half_of_the_requests_failing_opens_it() -> None:
    mixed = [one for _ in range(10) for one in (ok(1), failed(1))]
    assert isinstance(after(Closed(0), *mixed[:-1]), Closed)
    assert isinstance(after(Closed(0), *mixed), Open)


def test_the_rate_forgets_what_is_older_than_the_window() -> None:
    circuit = after(Closed(0), *[one for _ in range(9) for one in (ok(1), failed(1))])
    assert isinstance(after(circuit, ok(1, NOW + 40), failed(1, NOW + 40), now_s=NOW + 40), Closed)


@pytest.mark.parametrize("reason", ["rate_limited", "key_refused", "client_left", "", "something new"])
def test_what_is_not_the_providers_failure_opens_nothing(reason: str) -> None:
    """A 429 is the account's, a 401 the key's; an hour of them must leave the other accounts in use."""
    circuit: Circuit = Closed(0)
    for second in range(3600):
        circuit = after(circuit, failed(1, NOW + second, reason), now_s=NOW + second)
    assert circuit == Closed(0)


def test_failures_told_late_count_for_nothing() -> None:
    """What a node spooled while it was cut off describes the past."""
    assert after(Closed(0), failed(100, NOW - 31)) == Closed(0)


def test_failures_from_before_it_closed_count_for_nothing() -> None:
    assert after(Closed(NOW - 1), failed(100, NOW - 2)) == Closed(NOW - 1)


def test_requests_change_nothing_while_it_is_open() -> None:
    """The last candidate is tried all the same; that must not decide."""
    for circuit in (Open(NOW, NOW + 30, 1, "connect"), HalfOpen(NOW, 1, "connect")):
        assert after(circuit, ok(100), failed(100), ok(100)) == circuit


def test_only_a_probe_closes_it_and_only_when_its_time_is_over() -> None:
    circuit = after(Closed(0), failed(5))
    assert after_probe(circuit, is_alive=True, now_s=NOW + 1) == circuit
    assert after_waiting(circuit, NOW + 29.9) == circuit
    half_open = after_waiting(circuit, NOW + 30)
    assert half_open == HalfOpen(NOW + 30, 1, "connect")
    assert after_probe(half_open, is_alive=False, now_s=NOW + 31) == half_open
    assert after_probe(half_open, is_alive=True, now_s=NOW + 32) == Closed(NOW + 32, 1)


def test_it_stays_open_longer_each_time_up_to_a_bound() -> None:
    """A provider whose probes succeed and whose requests fail must not be tried by users every half minute."""
    circuit, now_s, lasted = Closed(NOW), NOW, []
    for _ in range(6):
        circuit_open = after(circuit, failed(5, now_s), now_s=now_s)
        assert isinstance(circuit_open, Open)
        lasted.append(circuit_open.until_s - circuit_open.since_s)
        now_s = circuit_open.until_s
        closed = after_probe(after_waiting(circuit_open, now_s), is_alive=True, now_s=now_s)
        assert isinstance(closed, Closed)
        circuit = closed
    assert lasted == [30, 60, 120, 240, 300, 300]


def test_a_long_time_without_trouble_ends_the_growth() -> None:
    assert after(Closed(NOW - 301, openings=5), failed(5)) == Open(NOW, NOW + 30, 1, "connect")


def test_a_request_that_was_served_there_closes_a_half_open_circuit() -> None:
    """It went there for want of anything else. One that began before may be an old stream, and proves nothing."""
    half_open = HalfOpen(NOW, 2, "connect")
    old, young = Successes("zai", 1, NOW + 2, NOW - 1), Successes("zai", 1, NOW + 2, NOW + 1)
    assert after(half_open, old, now_s=NOW + 2) == half_open
    assert after(half_open, ok(9, NOW + 2), now_s=NOW + 2) == half_open, "folded: nobody knows when they began"
    assert after(half_open, young, now_s=NOW + 2) == Closed(NOW + 2, 2)
    assert isinstance(after(Open(NOW, NOW + 30, 1, "connect"), young, now_s=NOW + 2), Open)


def test_probes_that_never_tell_do_not_keep_it_half_open() -> None:
    """A gateway without the endpoint answers 502 to every probe, also while it serves."""
    circuit: Circuit = HalfOpen(NOW, 1, "connect")
    for second in range(ANSWERS_THAT_DO - 1):
        for is_answered in (True, False):
            circuit = after_probe(
                circuit, is_alive=False, now_s=NOW + second, is_answered=is_answered, is_telling=False
            )
            assert isinstance(circuit, HalfOpen)
    told = after_probe(circuit, is_alive=False, now_s=NOW + 9, is_answered=True, is_telling=True)
    assert isinstance(told, HalfOpen), "this one's probes do tell: it is not alive"
    assert after_probe(circuit, is_alive=False, now_s=NOW + 9, is_answered=True, is_telling=False) == Closed(NOW + 9, 1)


def test_a_clock_put_back_does_not_keep_it_open() -> None:
    assert isinstance(after_waiting(Open(NOW, NOW + 30, 1, "connect"), NOW - 1_000), HalfOpen)
