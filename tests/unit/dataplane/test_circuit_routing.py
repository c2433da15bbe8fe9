"""Open circuits are passed by, the last candidate is kept; failures are told once and at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ccr_data.core.batches import Journal
from ccr_data.core.errors import CircuitsOpen
from ccr_data.core.failures import FailureNews
from ccr_data.core.pins import Pin
from ccr_data.core.records import Reason
from ccr_data.core.routing import Needs, NodeState, Plan, plan
from ccr_data.core.snapshot import (
    AuthMode,
    AuthPolicy,
    AuthStyle,
    Candidate,
    Key,
    Origin,
    Provider,
    ProviderType,
    RelayPolicy,
    Route,
    Snapshot,
    Strategy,
    Traits,
)
from ccr_data.shell.usage_wire import UsageEncoder
from ccr_rpc.v1 import usage_pb2


def provider(name: str, *, is_open: bool = False, documents: bool = True) -> Provider:
    origin, key = Origin("https", name, 443), Key(f"{name}-key", "secret", "")
    made = Provider(name, ProviderType.ANTHROPIC, origin, "", AuthStyle.X_API_KEY, (key,), is_open=is_open)
    return replace(made, traits=Traits(documents=documents))


def planned(*providers: Provider, drops: bool = False, needs: Needs | None = None, pin: Pin | None = None) -> Plan:
    candidates = tuple(Candidate(one.name, None, priority=place) for place, one in enumerate(providers))
    route = Route("default", (), candidates, Strategy.FAILOVER)
    relay = replace(RelayPolicy(), drops_last_candidate=drops)
    snapshot = Snapshot(1, AuthPolicy(AuthMode.NONE), {one.name: one for one in providers}, (route,), relay)
    return plan(snapshot.routed("m"), "m", needs or Needs(), pin, NodeState(), 0.0, lambda: 0.5)


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
    able, unable = provider("a", is_open=True), provider("b", documents=False)
    assert names(planned(able, unable, needs=Needs(documents=True))) == ["a"]


@pytest.mark.parametrize("count", [1, 2])
def test_the_last_is_dropped_if_told_to(count: int) -> None:
    with pytest.raises(CircuitsOpen):
        planned(*[provider(f"p{n}", is_open=True) for n in range(count)], drops=True)
    assert names(planned(provider("a", is_open=True), provider("b"), drops=True)) == ["b"]


def test_failures_of_one_kind_are_told_together() -> None:
    """A crowd of them is one line of news."""
    news = FailureNews()
    assert all(news.note("a", Reason.CONNECT, at_s) for at_s in (1.0, 1.1, 1.2))
    assert news.note("a", Reason.OVERLOADED, 1.3)
    assert [(one.reason, one.count, one.first_at_s, one.last_at_s) for one in news.all()] == [
        (Reason.CONNECT, 3, 1.0, 1.2),
        (Reason.OVERLOADED, 1, 1.3, 1.3),
    ]


@pytest.mark.parametrize("reason", [Reason.RATE_LIMITED, Reason.KEY_REFUSED, Reason.CLIENT_LEFT])
def test_what_is_no_failure_of_the_provider_is_no_news(reason: Reason) -> None:
    news = FailureNews()
    assert not news.note("a", reason, 1.0)
    assert not news


def test_news_are_in_the_next_batch_and_in_no_other() -> None:
    journal = Journal("j", UsageEncoder())
    assert journal.sight_failure("a", Reason.CONNECT, 1_700_000_000.25)
    first = journal.seal(0.0)
    second = journal.seal(0.0, even_if_empty=True)
    assert first is not None
    assert second is not None
    (told,) = usage_pb2.UsageBatch.FromString(first.payload).failures
    assert (told.provider, told.reason, told.count) == ("a", "connect", 1)
    assert told.last_at.ToMicroseconds() == 1_700_000_000_250_000
    assert not usage_pb2.UsageBatch.FromString(second.payload).failures
