"""Where requests go: shares of each strategy, pins, cooldowns; and never nowhere while something is left."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from ccr_data.core.errors import NoSuchModel, NotSupported
from ccr_data.core.patterns import best_fit, fits
from ccr_data.core.pins import QUIET_PART, Pin, Pins
from ccr_data.core.records import Reason
from ccr_data.core.routing import Needs, NodeState, after_failure, plan
from ccr_data.core.snapshot import Candidate, Key, KeySelection, Provider, Route, Snapshot, Strategy, Target, Traits
from hypothesis import given
from hypothesis import strategies as st
from support import routing


def provider(
    name: str, *, keys: int = 1, serves: tuple[str, ...] = ("*",), enabled: bool = True, **traits: bool
) -> Provider:
    made = tuple(Key(f"{name}-{n}", "secret", f"{name}-scope-{n // 2}") for n in range(keys))
    return routing.provider(name, *made, serves=serves, traits=Traits(**traits), is_enabled=enabled)  # type: ignore[arg-type]


def snapshot(providers: list[Provider], strategy: Strategy, weights: Sequence[int] = ()) -> Snapshot:
    return routing.snapshot(*providers, strategy=strategy, weights=weights, only_served=True)


NOTHING_SPECIAL = Needs()


class Node:
    """What a node keeps between requests."""

    def __init__(self, of: Snapshot, seed: int = 1) -> None:
        self.snapshot = of
        self.state = NodeState()
        self.cooldowns = self.state.cooldowns
        self.roll = random.Random(seed).random

    def plan(
        self, needs: Needs = NOTHING_SPECIAL, pin: Pin | None = None, model: str = "m", now_s: float = 0.0
    ) -> list[Target]:
        routed = self.snapshot.routed(model)
        return plan(routed, model, needs, pin, self.state, now_s, self.roll).targets

    def firsts(self, count: int) -> Counter[str]:
        return Counter(self.plan()[0].provider.name for _ in range(count))


@pytest.mark.parametrize("weights", [[1, 1], [3, 1], [5, 3, 2]])
def test_a_shuffle_shares_by_weight(weights: list[int]) -> None:
    """Within four standard deviations of the binomial."""
    names = [f"p{n}" for n in range(len(weights))]
    node = Node(snapshot([provider(name) for name in names], Strategy.SIMPLE_SHUFFLE, weights))
    firsts = node.firsts(4000)

    for name, weight in zip(names, weights, strict=True):
        share = weight / sum(weights)
        assert abs(firsts[name] - 4000 * share) < 4 * (4000 * share * (1 - share)) ** 0.5


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(1, 4))
def test_weighted_turns_are_exact_in_every_round(weights: list[int], rounds: int) -> None:
    """After whole rounds each has had exactly its share."""
    names = [f"p{n}" for n in range(len(weights))]
    node = Node(snapshot([provider(name) for name in names], Strategy.WEIGHTED_ROUND_ROBIN, weights))

    assert node.firsts(sum(weights) * rounds) == {
        name: weight * rounds for name, weight in zip(names, weights, strict=True)
    }


def of_one_provider(strategy: Strategy, weights: Sequence[int]) -> Node:
    """A node with one route, to so many models of one provider."""
    candidates = tuple(Candidate("p", f"m{n}", weight, n) for n, weight in enumerate(weights))
    served = routing.snapshot(provider("p"), strategy=strategy)
    return Node(replace(served, routes=(Route("split", (), candidates, strategy),)))


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.integers(1, 4))
def test_models_of_one_provider_have_turns_of_their_own(weights: list[int], rounds: int) -> None:
    """A route may split requests among them."""
    node = of_one_provider(Strategy.WEIGHTED_ROUND_ROBIN, weights)
    firsts = Counter(node.plan()[0].model for _ in range(sum(weights) * rounds))

    assert firsts == {f"m{n}": weight * rounds for n, weight in enumerate(weights)}


@given(st.integers(2, 6), st.integers(1, 5))
def test_turns_go_round(count: int, rounds: int) -> None:
    names = [f"p{n}" for n in range(count)]
    node = Node(snapshot([provider(name) for name in names], Strategy.ROUND_ROBIN))

    assert [node.plan()[0].provider.name for _ in range(count * rounds)] == names * rounds


@given(st.integers(2, 4), st.integers(0, 5), st.sampled_from([Strategy.ROUND_ROBIN, Strategy.WEIGHTED_ROUND_ROBIN]))
def test_sessions_take_turns_and_their_later_requests_none(count: int, later: int, strategy: Strategy) -> None:
    """However many requests a session has: as many come to live at each provider, and with each key."""
    own_keys = replace(provider("p0", keys=count), key_selection=KeySelection.ROUND_ROBIN)
    for of, name in (
        (snapshot([provider(f"p{n}") for n in range(count)], strategy), lambda target: target.provider.name),
        (snapshot([own_keys], strategy), lambda target: target.label),
    ):
        node, homes = Node(of), Counter[str]()
        for _ in range(2 * count):
            home = node.plan()[0]
            homes[name(home)] += 1
            for _ in range(later):
                assert node.plan(pin=Pin(home.provider.name, home.label, 1e9))[0] == home
        assert set(homes.values()) == {2}


def test_failover_keeps_to_the_first_while_it_works() -> None:
    node = Node(snapshot([provider("a"), provider("b")], Strategy.FAILOVER))
    assert node.firsts(20) == {"a": 20}

    node.cooldowns.note(node.plan()[0], Reason.OVERLOADED, until_s=10.0)
    assert [target.provider.name for target in node.plan(now_s=5.0)] == ["b", "a"]
    assert [target.provider.name for target in node.plan(now_s=10.0)] == ["a", "b"]


@given(
    st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=4),
    st.sampled_from(list(Strategy)),
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from(list(Reason))), max_size=8),
)
def test_every_target_stays_reachable_whatever_cools_down(
    shapes: list[tuple[int, bool]], strategy: Strategy, failures: list[tuple[int, Reason]]
) -> None:
    """Never stuck: cooling down only changes the order."""
    providers = [provider(f"p{n}", keys=keys, enabled=on or n == 0) for n, (keys, on) in enumerate(shapes)]
    node = Node(snapshot(providers, strategy))
    expected = {key.label for one in providers if one.is_enabled for key in one.keys}
    for which, reason in failures:
        targets = node.plan()
        node.cooldowns.note(targets[which % len(targets)], reason, until_s=100.0)

    assert {target.label for target in node.plan()} == expected
    assert len(node.plan()) == len(expected)


@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 50), st.sampled_from(list(Strategy)))
def test_a_pin_comes_first_unless_it_cools_down(count: int, keys: int, seed: int, strategy: Strategy) -> None:
    node = Node(snapshot([provider(f"p{n}", keys=keys) for n in range(count)], strategy), seed)
    pin = Pin("p1", f"p1-{keys - 1}", 1e9)

    first = node.plan(pin=pin)[0]
    assert (first.provider.name, first.label) == ("p1", f"p1-{keys - 1}")
    node.cooldowns.note(first, Reason.RATE_LIMITED, until_s=10.0)
    assert node.plan(pin=pin, now_s=1.0)[0] is not first


@given(st.sampled_from(list(Strategy)), st.integers(0, 2), st.integers(0, 50))
def test_a_session_stays_with_its_model(strategy: Strategy, model: int, turns: int) -> None:
    """Where a route has several of one provider, the prompt is cached for one of them."""
    node = of_one_provider(strategy, [1, 2, 3])
    for _ in range(turns):
        node.plan()

    assert node.plan(pin=Pin("p", "p-0", 1e9, model=f"m{model}"))[0].model == f"m{model}"
    assert node.plan(pin=Pin("p", "p-0", 1e9))[0].label == "p-0"  # noted by a version that did not say which


def test_what_shares_a_failure_is_tried_last() -> None:
    node = Node(snapshot([provider("a", keys=4), provider("b")], Strategy.FAILOVER))
    first, *rest = node.plan()

    limited = after_failure(rest, first, Reason.RATE_LIMITED)
    assert limited[-1].scope == first.scope
    assert after_failure(rest, first, Reason.CONNECT)[0].provider.name == "b"


def test_a_request_goes_only_where_it_can_be_served() -> None:
    counting, plain = provider("counting"), provider("plain", count_tokens=False, documents=False)
    node = Node(snapshot([plain, counting], Strategy.FAILOVER))

    assert [target.provider.name for target in node.plan(Needs(count_tokens=True))] == ["counting"]
    assert [target.provider.name for target in node.plan(Needs(documents=True))] == ["counting"]
    with pytest.raises(NotSupported):
        Node(snapshot([plain], Strategy.FAILOVER)).plan(Needs(count_tokens=True))
    assert Node(snapshot([plain], Strategy.FAILOVER)).plan(Needs(documents=True))  # better than nothing


def test_a_lone_provider_gets_every_name() -> None:
    """It says itself what it makes of a name; among several, an unknown name goes nowhere."""
    lone = provider("a", serves=("claude*",))
    assert Node(snapshot([lone], Strategy.FAILOVER)).plan(model="new-name")[0].provider is lone

    with pytest.raises(NoSuchModel):
        Node(snapshot([lone, provider("b", serves=("glm*",))], Strategy.FAILOVER)).plan(model="new-name")


@given(st.text("ab*", max_size=6), st.text("ab", max_size=8))
def test_patterns_agree_with_a_plain_definition(pattern: str, name: str) -> None:
    def matches(rest: str, text: str) -> bool:
        if not rest:
            return not text
        if rest[0] == "*":
            return matches(rest[1:], text) or (bool(text) and matches(rest, text[1:]))
        return bool(text) and rest[0] == text[0] and matches(rest[1:], text[1:])

    assert fits(pattern, name) == matches(pattern, name)


def test_the_most_specific_rule_renames() -> None:
    rules = [("*", "any"), ("claude-*", "claude"), ("claude-sonnet-*", "sonnet"), ("claude-sonnet-5", "exact")]

    assert best_fit(rules, "claude-sonnet-5") == "exact"
    assert best_fit(rules, "claude-sonnet-4-5") == "sonnet"
    assert best_fit(rules, "claude-opus-5") == "claude"
    assert best_fit(rules, "glm-5") == "any"


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.floats(0, 4000)), max_size=60))
def test_pins_are_bounded_and_expire(steps: list[tuple[int, int, float]]) -> None:
    """The newest note of a session counts until its cache must have expired."""
    pins, model, now_s = Pins(limit=10), dict[bytes, tuple[str, float]](), 0.0
    for session, place, pause_s in steps:
        now_s += pause_s
        pins.put(b"s%d" % session, f"p{place}", "k", now_s)
        model[b"s%d" % session] = (f"p{place}", now_s)
        assert len(pins) <= 10
        found = pins.of(b"s%d" % session, now_s)
        assert found is not None
        assert found.provider == f"p{place}"
    for name, (place_name, noted_s) in model.items():
        found = pins.of(name, now_s)
        assert found is None or (found.provider == place_name and now_s - noted_s <= 3600.0 * (1 + QUIET_PART))
