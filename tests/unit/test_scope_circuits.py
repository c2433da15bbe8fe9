"""Whose fault a failure is: the provider's, or that of one account there."""

from __future__ import annotations

import pytest
from ccr_control.core.circuits import CircuitPolicy, Failures, Successes
from ccr_control.core.health import REFUSED, Health, ProbeResult, ProviderSetup, ScopeSetup

POLICY = CircuitPolicy(failures=5, failure_rate=0.5, min_requests=20, window_s=30, open_for_s=30)
NOW = 1_000_000.0


def health(*scopes: str, policy: CircuitPolicy = POLICY) -> Health:
    """A provider `p` with these scopes; each has one key of the same name."""
    found = Health()
    setup = ProviderSetup("1", {scope: ScopeSetup("1", frozenset([scope])) for scope in scopes})
    found.configure(policy, {"p": setup}, NOW - 100)
    return found


def failed(key: str, count: int = 1, reason: str = "overloaded") -> Failures:
    return Failures("p", reason, count, NOW, NOW, count, count, key)


def ok(key: str, count: int = 1) -> Successes:
    return Successes("p", count, NOW, NOW, key)


def states(of: Health, *scopes: str) -> list[str]:
    return [of.state_of("p", scope) for scope in scopes]


def test_an_account_that_fails_alone_is_passed_by_alone() -> None:
    """A suspended account answers 5xx; the others are served meanwhile."""
    found = health("a", "b")
    for _ in range(5):
        found.note([failed("a"), ok("b")], NOW)
    assert states(found, "", "a", "b") == ["closed", "open", "closed"]


def test_a_row_of_one_account_is_its_own_fault_although_nobody_else_was_asked() -> None:
    found = health("a", "b")
    found.note([failed("a", 5)], NOW)
    assert states(found, "", "a", "b") == ["closed", "open", "closed"]


def test_a_row_over_several_accounts_is_the_providers() -> None:
    found = health("a", "b")
    found.note([failed("a", 2), failed("b", 2), failed("a")], NOW)
    assert states(found, "", "a", "b") == ["open", "closed", "closed"]


def test_one_bad_answer_beside_an_account_that_fails_is_not_enough() -> None:
    found = health("a", "b")
    found.note([failed("a", 4), failed("b"), failed("a")], NOW)
    assert states(found, "", "a", "b") == ["closed", "open", "closed"]
    found.note([failed("b")], NOW)
    assert states(found, "", "b") == ["closed", "closed"], "its row began anew when the account opened"


def test_when_the_last_account_opens_so_does_the_provider() -> None:
    found = health("a", "b")
    events = found.note([failed("a", 5), failed("b", 5)], NOW)
    assert [(event.scope, event.state) for event in events] == [("a", "open"), ("b", "open"), ("", "open")]


def test_no_connection_is_the_providers_at_once() -> None:
    found = health("a", "b")
    found.note([failed("a", 5, "connect")], NOW)
    assert states(found, "", "a", "b") == ["open", "closed", "closed"]


def test_the_only_account_of_a_provider_is_the_provider() -> None:
    found = health("a")
    found.note([failed("a", 5)], NOW)
    assert states(found, "", "a") == ["open", "closed"]


def test_a_rate_of_one_account_is_its_own() -> None:
    """Every second request of one fails, none of the other's."""
    found = health("a", "b")
    for _ in range(10):
        found.note([failed("a"), ok("a"), ok("b")], NOW)
    assert states(found, "", "a", "b") == ["closed", "closed", "closed"]
    found.note([failed("a"), ok("a"), failed("a")], NOW)
    assert states(found, "", "a", "b") == ["closed", "open", "closed"]


def test_a_rate_of_all_accounts_is_the_providers() -> None:
    """Spread over twelve accounts, none of which was asked often enough to be judged alone."""
    scopes = [f"s{n}" for n in range(12)]
    found = health(*scopes)
    for _ in range(2):
        for scope in scopes:
            found.note([failed(scope), ok(scope)], NOW)
    assert states(found, "", *scopes) == ["open", *["closed"] * 12]


def test_all_keys_of_an_account_must_be_refused() -> None:
    """One key that was revoked says nothing about the account."""
    found = Health()
    setup = ProviderSetup("1", {"a": ScopeSetup("1", frozenset(["k1", "k2"])), "b": ScopeSetup("1", frozenset(["k3"]))})
    found.configure(POLICY, {"p": setup}, NOW - 100)
    found.note([failed("k1", 50, REFUSED)], NOW)
    assert states(found, "a") == ["closed"]
    found.note([ok("k1"), failed("k2", 1, REFUSED)], NOW)
    assert states(found, "a") == ["closed"], "the first was accepted meanwhile"
    found.note([failed("k1", 1, REFUSED)], NOW)
    assert states(found, "", "a", "b") == ["closed", "open", "closed"]
    found.note([failed("k3", 9, REFUSED)], NOW)
    assert states(found, "", "a", "b") == ["closed", "open", "open"], "logins of clients may still go to the provider"


def test_a_refused_account_is_back_when_a_probe_with_its_key_is_accepted() -> None:
    found = health("a", "b")
    found.note([failed("a", 1, REFUSED)], NOW)
    found.pass_time(NOW + 30)
    assert states(found, "a") == ["half_open"]
    found.probed("p", ProbeResult(NOW + 31, True, 1.0, 401, "it refuses the key"), "a")
    assert states(found, "a") == ["half_open"]
    found.probed("p", ProbeResult(NOW + 32, True, 1.0, 200), "b")
    assert states(found, "a") == ["half_open"], "another account's key"
    found.probed("p", ProbeResult(NOW + 33, True, 1.0, 200), "a")
    assert states(found, "a") == ["closed"]


def test_failures_with_a_clients_own_token_are_the_providers() -> None:
    """Many accounts, of which the relay knows nothing."""
    found = health("a", "b")
    found.note([failed("", 5)], NOW)
    assert states(found, "", "a", "b") == ["open", "closed", "closed"]


@pytest.mark.parametrize(("identity", "expected"), [("1", "open"), ("2", "closed")])
def test_a_scope_with_other_keys_begins_closed(identity: str, expected: str) -> None:
    found = health("a", "b")
    found.note([failed("a", 5)], NOW)
    scopes = {"a": ScopeSetup(identity, frozenset(["a"])), "b": ScopeSetup("1", frozenset(["b"]))}
    found.configure(POLICY, {"p": ProviderSetup("1", scopes)}, NOW)
    assert states(found, "a", "b") == [expected, "closed"]


def test_circuits_outlive_the_control_plane_if_what_they_are_about_is_the_same() -> None:
    found = health("a", "b")
    found.note([failed("a", 5), failed("b", 4)], NOW)
    saved = found.saved()
    again = health("a", "b")
    again.restore(saved, found.providers()["p"].events)
    assert states(again, "", "a", "b") == ["closed", "open", "closed"]
    assert [event.state for event in again.providers()["p"].events] == ["open"]
    again.note([failed("b")], NOW)
    assert states(again, "b") == ["closed"], "what was counted while closed begins anew"
    other = Health()
    other.configure(POLICY, {"p": ProviderSetup("2", {"a": ScopeSetup("2", frozenset(["a"]))})}, NOW)
    other.restore(saved, ())
    assert states(other, "", "a") == ["closed", "closed"]
