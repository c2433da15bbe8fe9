"""Somebody sets the clock: nothing waits until it has caught up, nothing counts twice or never again."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import pytest
from ccr_control.core.circuits import CircuitPolicy, Closed, Failures, HalfOpen, Open, Successes
from ccr_control.core.health import Health, ProbeResult, ProviderSetup
from ccr_control.core.leases import LEARN_S, Amounts, BudgetName, Leases, Use
from ccr_control.core.ledger import Counters
from ccr_control.core.refreshing import Standing, failed, found, is_due, put_back, refused
from ccr_control.core.stats import Slice, Stats
from ccr_data.core.amounts import Allowance, Spent
from ccr_data.core.budget import Lease
from ccr_data.core.limit_headers import rest_asked
from ccr_data.core.limits import Limits
from ccr_data.shell.kept_budgets import Clocks, KeptBudgets
from ccr_data.shell.node_dir import NodeDir
from support.node_values import STARTED_AT_S

NOW_S = STARTED_AT_S
HOUR_S = 3600.0
POLICY = CircuitPolicy(failures=3, open_for_s=30.0)
JUMPS = [-24 * HOUR_S, -HOUR_S, -40.0, 40.0, HOUR_S, 24 * HOUR_S]


def health() -> Health:
    made = Health(POLICY)
    made.configure(POLICY, {"p": ProviderSetup("p")}, NOW_S)
    return made


def failures(at_s: float, count: int = 1) -> Failures:
    return Failures("p", "overloaded", count, at_s, at_s, count)


@pytest.mark.parametrize("jump_s", JUMPS)
def test_a_circuit_still_opens(jump_s: float) -> None:
    """It closed at what is a time to come now."""
    known = health()
    assert not known.note([failures(NOW_S + 1)], NOW_S + 1)
    at_s = NOW_S + 2 + jump_s
    known.note([failures(at_s, 3)], at_s)
    assert known.state_of("p") == "open"


@pytest.mark.parametrize("jump_s", JUMPS)
def test_an_answer_still_ends_a_row_of_failures(jump_s: float) -> None:
    known = health()
    known.note([failures(NOW_S + 1, 2)], NOW_S + 1)
    at_s = NOW_S + 2 + jump_s
    known.note([Successes("p", 1, at_s, at_s)], at_s)
    known.note([failures(at_s + 1, 2)], at_s + 1)
    assert known.state_of("p") == "closed"


@pytest.mark.parametrize("jump_s", JUMPS)
def test_an_open_circuit_is_tried_again_no_later(jump_s: float) -> None:
    known = health()
    known.note([failures(NOW_S, 3)], NOW_S)
    known.pass_time(NOW_S + 1 + jump_s)
    known.pass_time(NOW_S + 31 + jump_s)
    assert known.state_of("p") == "half_open"
    known.probed("p", ProbeResult(NOW_S + 32 + jump_s, True, 1.0, 200))
    assert known.state_of("p") == "closed"


@pytest.mark.parametrize("jump_s", JUMPS)
def test_a_served_request_still_closes_a_half_open_one(jump_s: float) -> None:
    known = health()
    known.note([failures(NOW_S, 3)], NOW_S)
    known.pass_time(NOW_S + 30)
    assert known.state_of("p") == "half_open"
    at_s = NOW_S + 31 + jump_s
    known.pass_time(at_s)
    known.note([Successes("p", 1, at_s + 2, at_s + 1)], at_s + 2)
    assert known.state_of("p") == "closed"


@pytest.mark.parametrize("circuit", [Closed(NOW_S), HalfOpen(NOW_S, 1, "broken"), Open(NOW_S, NOW_S + 30, 1, "broken")])
def test_what_was_kept_by_a_clock_that_was_ahead_is_no_obstacle(circuit: Closed | HalfOpen | Open) -> None:
    """The control plane was stopped, the clock put back, and it started again."""
    earlier = health()
    earlier.providers()["p"].circuit = circuit
    later = Health(POLICY)
    later.configure(POLICY, {"p": ProviderSetup("p")}, NOW_S - HOUR_S)
    later.restore(earlier.saved(), ())
    later.pass_time(NOW_S - HOUR_S)
    if isinstance(circuit, Closed):
        later.note([failures(NOW_S - HOUR_S + 1, 3)], NOW_S - HOUR_S + 1)
        assert later.state_of("p") == "open"
    else:
        assert later.state_of("p") == "half_open"


def test_a_lease_of_a_control_plane_whose_clock_was_ahead_is_followed_by_newer_ones() -> None:
    """Nodes heed no older lease than they have."""
    name, whole = BudgetName("p", "s", ""), Amounts(requests=100)
    held = 1_790_000_000_000 + 3_600_000
    leases = Leases(0.0, held - 3_600_000, expected_nodes=2)
    for node, asked in (("a", 0), ("b", 50)):
        leases.reported(node, "i", {name: Use(whole, Amounts(requests=50), Amounts(), asked, held)}, 1.0)
    for at_s in (LEARN_S + 1, LEARN_S + 2):
        for node, asked in (("a", 0), ("b", 50)):
            use = Use(whole, Amounts(requests=50), Amounts(), asked, held)
            for lease in leases.reported(node, "i", {name: use}, at_s):
                assert lease.serial > held
    claims = leases.claims(name, LEARN_S + 2)
    assert sum(claim.requests for claim in claims.values()) <= 100


def test_a_serial_that_is_none_is_not_believed() -> None:
    name, whole = BudgetName("p", "s", ""), Amounts(requests=100)
    leases = Leases(0.0, 5)
    use = Use(whole, whole, Amounts(), 1, (1 << 63) - 1)
    given = [one for at_s in (1.0, 10.0, 20.0) for one in leases.reported("a", "i", {name: use}, at_s)]
    assert all(5 < lease.serial < 100 for lease in given)


@pytest.mark.parametrize(("serial", "is_believed"), [(7, True), (1 << 62, False), ((1 << 63) - 1, False)])
def test_a_kept_lease_beyond_all_serials_is_not_taken_over(serial: int, *, is_believed: bool) -> None:
    """The control plane counts on from none of those: the node would heed no lease of its any more."""
    limits, share = Limits(), Allowance(requests=5)
    limits.recall([Spent(("p", "s"), "", share, share, serial)], 100.0, 1.0)
    assert [one.serial for one in limits.spent(100.0)] == ([serial] if is_believed else [])
    limits.take_lease(Lease(("p", "s"), "", share, 8, share))
    assert [one.serial for one in limits.spent(100.0)] == [8]


def test_a_credential_is_looked_for_though_its_time_lies_ahead() -> None:
    """Neither a retry nor a refusal waits for the clock."""
    begun = found(Standing(0.0), NOW_S + HOUR_S, NOW_S, 0.5)
    refused_once = refused(begun, NOW_S + 10)
    after = put_back(failed(refused_once, "no network", NOW_S + 11, 0.5), NOW_S - HOUR_S)
    assert is_due(after, NOW_S - HOUR_S)
    again = refused(found(after, NOW_S + HOUR_S, NOW_S - HOUR_S, 0.5), NOW_S - HOUR_S + 60)
    assert is_due(again, NOW_S - HOUR_S + 60)


@pytest.mark.parametrize("jump_s", [-HOUR_S, -24 * HOUR_S])
def test_rates_of_what_is_ahead_are_forgotten(jump_s: float) -> None:
    """A minute that will come again does not count for an hour."""
    stats = Stats()
    stats._window("p").merge(int(NOW_S), Slice(requests=7))
    assert stats.report(NOW_S).total.requests_per_s > 0
    assert stats.report(NOW_S + jump_s).total.requests_per_s == 0


def test_today_is_still_today_when_the_clock_was_ahead_for_a_while() -> None:
    stats = Stats()
    stats.begin({}, Counters(cost_micro_usd=70), NOW_S)
    assert stats.report(NOW_S + 24 * HOUR_S).cost_today_micro_usd == 0
    assert stats.report(NOW_S + 1).cost_today_micro_usd == 70


@pytest.mark.parametrize(("boot", "used"), [("this-start", 3), ("another-start", 0)])
async def test_what_was_used_counts_for_its_minute_whatever_the_clock_says(
    tmp_path: Path, boot: str, used: int
) -> None:
    """As long as the machine was not started anew: then nothing else is known."""
    directory = NodeDir(tmp_path, "n")
    directory.path.mkdir(parents=True)
    scope = ("p", "s")
    before = Limits()
    before.configure({scope: Allowance(requests=10)}, {}, 1)
    budget = before.budget(scope, "m")
    assert budget is not None
    for _ in range(3):
        assert budget.try_reserve(100, perf_counter())
    await KeptBudgets(directory, before, clocks=Clocks(lambda: NOW_S, lambda: 500.0, "this-start")).save()
    after = Limits()
    after.configure({scope: Allowance(requests=10)}, {}, 1)
    KeptBudgets(directory, after, clocks=Clocks(lambda: NOW_S + HOUR_S, lambda: 510.0, boot)).load()
    found_again = after.budget(scope, "m")
    assert found_again is not None
    assert found_again.used(perf_counter()).requests == used


@pytest.mark.parametrize("wrong_s", [-HOUR_S, 0.0, HOUR_S])
def test_moments_are_told_by_the_clock_of_who_names_them(wrong_s: float) -> None:
    """This machine's may be wrong by an hour; the provider's answer says what time it is there."""
    headers = {
        b"date": b"Sat, 21 Nov 2026 16:00:00 GMT",
        b"anthropic-ratelimit-requests-remaining": b"0",
        b"anthropic-ratelimit-requests-reset": b"2026-11-21T16:00:30Z",
    }
    here_s = 1_795_276_800.0 + wrong_s
    assert rest_asked(headers, b"", here_s, 1.0) == (30.0, False)
    unified = {b"date": headers[b"date"], b"anthropic-ratelimit-unified-reset": b"1795276860"}
    assert rest_asked(unified, b"", here_s, 1.0) == (60.0, True)
    assert rest_asked({**unified, b"date": b"soon"}, b"", 1_795_276_800.0, 1.0) == (60.0, True)
