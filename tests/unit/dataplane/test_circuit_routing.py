"""Open circuits are passed by, the last candidate is kept; failures are told once and at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ccr_data.core.batches import Journal
from ccr_data.core.errors import CircuitsOpen
from ccr_data.core.failures import FailureNews
from ccr_data.core.pins import Pin
from ccr_data.core.records import Reason
from ccr_data.core.routing import Cooldowns, Needs, NodeState, Plan, plan
from ccr_data.core.snapshot import Key, KeyState, Origin, Provider, Traits
from ccr_data.shell.usage_wire import UsageEncoder
from ccr_rpc.v1 import usage_pb2
from support.routing import POLICY, provider, snapshot


def planned(*providers: Provider, drops: bool = False, needs: Needs | None = None, pin: Pin | None = None) -> Plan:
    known = snapshot(*providers, relay=replace(POLICY, drops_last_candidate=drops))
    return plan(known.routed("m"), "m", needs or Needs(), pin, NodeState(), 0.0, lambda: 0.5)


def names(of: Plan) -> list[str]:
    return [target.provider.name for target in of.targets]


def test_an_open_one_is_passed_by_and_the_plan_says_so() -> None:
    found = planned(provider("a", is_open=True), provider("b"), provider("c"))
    assert names(found) == ["b", "c"]
    assert ("a", "circuit open") in found.passed_over


def test_a_pin_leads_to_no_open_one() -> None:
    """A session whose provider is open goes on elsewhere."""
    assert names(planned(provider("a", is_open=True), provider("b"), pin=Pin("a", "a-key", 9e9))) == ["b"]


def test_the_last_is_kept() -> None:
    both = planned(provider("a", is_open=True), provider("b", is_open=True))
    assert names(both) == ["a", "b"]
    assert names(planned(provider("a", is_open=True))) == ["a"]


def test_the_last_able_one_is_kept() -> None:
    """What the others cannot do is no reason to refuse."""
    able, unable = provider("a", is_open=True), provider("b", traits=Traits(documents=False))
    assert names(planned(able, unable, needs=Needs(documents=True))) == ["a"]


@pytest.mark.parametrize("count", [1, 2])
def test_the_last_is_dropped_if_told_to(count: int) -> None:
    with pytest.raises(CircuitsOpen):
        planned(*[provider(f"p{n}", is_open=True) for n in range(count)], drops=True)
    assert names(planned(provider("a", is_open=True), provider("b"), drops=True)) == ["b"]


def two_keys(name: str, *, first_open: bool, second_open: bool, state: KeyState = KeyState.ACTIVE) -> Provider:
    keys = (
        Key("k1", "secret", "org-1", is_open=first_open),
        Key("k2", "secret", "org-2", is_open=second_open, state=state),
    )
    return replace(provider(name), keys=keys)


def labels(of: Plan) -> list[str]:
    return [f"{target.provider.name}/{target.label}" for target in of.targets]


def test_a_key_of_an_open_scope_is_passed_by_and_the_plan_says_so() -> None:
    """A fault of one account leaves the provider in use."""
    found = planned(two_keys("a", first_open=True, second_open=False), provider("b"))
    assert labels(found) == ["a/k2", "b/b-key"]
    assert ("a/k1", "circuit open") in found.passed_over


def test_a_provider_all_of_whose_scopes_are_open_is_passed_by() -> None:
    found = planned(two_keys("a", first_open=True, second_open=True), provider("b"))
    assert labels(found) == ["b/b-key"]
    assert ("a", "circuit open") in found.passed_over


def test_the_keys_of_open_scopes_are_kept_where_there_is_nothing_else() -> None:
    found = planned(two_keys("a", first_open=True, second_open=True))
    assert sorted(labels(found)) == ["a/k1", "a/k2"]
    with pytest.raises(CircuitsOpen):
        planned(two_keys("a", first_open=True, second_open=True), drops=True)
    assert labels(planned(two_keys("a", first_open=True, second_open=False), drops=True)) == ["a/k2"]


def test_a_clients_own_token_goes_where_the_relays_accounts_are_passed_by() -> None:
    """Its account is another one."""
    one = replace(two_keys("a", first_open=True, second_open=True), accepts_subscription=True)
    other = replace(provider("b"), accepts_subscription=True)
    assert names(planned(one, other, needs=Needs(own_token=True))) == ["a", "b"]


@pytest.mark.parametrize(("is_open", "expected"), [(False, ["a/k2", "a/k1"]), (True, ["a/k1"])])
def test_a_draining_key_of_an_open_scope_is_passed_by_too(is_open: bool, expected: list[str]) -> None:
    drains = two_keys("a", first_open=False, second_open=is_open, state=KeyState.DEPRECATED)
    assert labels(planned(drains, pin=Pin("a", "k2", 9e9))) == expected


def test_failures_of_two_keys_are_told_apart() -> None:
    """Whether it is the account's fault or the provider's shows only then."""
    news = FailureNews()
    for label in ("k1", "k2", "k1"):
        assert news.note("a", Reason.KEY_REFUSED, 1.0, label, f"org-{label}")
    assert [(one.key_label, one.scope, one.count) for one in news.all()] == [("k1", "org-k1", 2), ("k2", "org-k2", 1)]


def test_failures_of_one_kind_are_told_together() -> None:
    """A crowd of them is one line of news."""
    news = FailureNews()
    assert all(news.note("a", Reason.CONNECT, at_s) for at_s in (1.0, 1.1, 1.2))
    assert news.note("a", Reason.OVERLOADED, 1.3)
    assert [(one.reason, one.count, one.first_at_s, one.last_at_s) for one in news.all()] == [
        (Reason.CONNECT, 3, 1.0, 1.2),
        (Reason.OVERLOADED, 1, 1.3, 1.3),
    ]


@pytest.mark.parametrize("reason", [Reason.RATE_LIMITED, Reason.CLIENT_LEFT, Reason.SIGNATURE])
def test_what_is_no_failure_of_provider_or_key_is_no_news(reason: Reason) -> None:
    news = FailureNews()
    assert not news.note("a", reason, 1.0)
    assert not news


def test_news_are_in_the_next_batch_and_in_no_other() -> None:
    journal = Journal("j", UsageEncoder())
    assert journal.sight_failure("a", Reason.CONNECT, 1_700_000_000.25, "k", "org")
    first = journal.seal(0.0)
    second = journal.seal(0.0, even_if_empty=True)
    assert first is not None
    assert second is not None
    (told,) = usage_pb2.UsageBatch.FromString(first.payload).failures
    assert (told.provider, told.reason, told.count) == ("a", "connect", 1)
    assert (told.key_label, told.scope) == ("k", "org")
    assert told.last_at.ToMicroseconds() == 1_700_000_000_250_000
    assert not usage_pb2.UsageBatch.FromString(second.payload).failures


def test_a_cooldown_ends_when_the_circuit_closes_unless_it_is_a_rate_limits() -> None:
    """A probe found the key accepted, or an operator reset it: nobody waits for the node's own minute to be over."""

    before, now = (snapshot(two_keys("a", first_open=is_open, second_open=is_open)) for is_open in (True, False))
    k1, k2 = now.routed("m").choices[0].targets
    cooldowns = Cooldowns()
    cooldowns.note(k1, Reason.KEY_REFUSED, 60.0)
    cooldowns.note(k2, Reason.RATE_LIMITED, 60.0)
    cooldowns.heed(now, now)
    assert cooldowns.is_cooling(k1, 1.0), "nothing has closed"
    cooldowns.heed(before, now)
    assert [cooldowns.is_cooling(one, 1.0) for one in (k1, k2)] == [False, True]


def test_a_provider_that_is_elsewhere_now_rests_for_nothing() -> None:
    """Its address was wrong, and has been put right; another provider rests on."""
    before = snapshot(two_keys("a", first_open=False, second_open=False), provider("b"))
    moved = replace(before.providers["a"], origin=Origin("https", "right", 443))
    now = snapshot(moved, before.providers["b"])
    (k1, k2), (b,) = (choice.targets for choice in before.routed("m").choices)
    cooldowns = Cooldowns()
    for target, reason in (
        (k1, Reason.CONNECT),
        (k1, Reason.KEY_REFUSED),
        (k2, Reason.RATE_LIMITED),
        (b, Reason.CONNECT),
    ):
        cooldowns.note(target, reason, 60.0)
    cooldowns.heed(before, now)
    assert [cooldowns.is_cooling(one, 1.0) for one in (*now.routed("m").choices[0].targets, b)] == [False, False, True]
