"""Routing over hundreds of keys: the same promises as over two, at a cost that does not grow with them."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from ccr_data.core.pins import Pin
from ccr_data.core.records import Reason
from ccr_data.core.routing import MOST_ORDERED, Needs, NodeState, Plan, plan
from ccr_data.core.snapshot import NEVER_S, Key, KeySelection, RoutedModel
from hypothesis import given, settings
from hypothesis import strategies as st
from support.routing import provider, snapshot

MODEL = "claude-sonnet-5"


def routed(
    providers: int,
    keys: int,
    selection: KeySelection,
    priorities: int = 1,
    ends_s: float = NEVER_S,
    heavy: int | None = None,
) -> RoutedModel:
    """So many providers of so many keys, whose priorities go round; every other one ends then.

    `heavy`: this one weighs as much as all others together, which weigh the same.
    """
    made = [
        provider(
            f"p{p}",
            *(
                Key(
                    f"k{n}",
                    "secret",
                    "",
                    weight=1 + n % 3 if heavy is None else keys - 1 if n == heavy else 1,
                    priority=n % priorities,
                    expires_at_s=NEVER_S if n % 2 else ends_s,
                )
                for n in range(keys)
            ),
            key_selection=selection,
        )
        for p in range(providers)
    ]
    return snapshot(*made).routed(MODEL)


def planned(one: RoutedModel, seed: int, pin: Pin | None = None, node: NodeState | None = None) -> Plan:
    roll = random.Random(seed).random
    return plan(one, MODEL, Needs(), pin, node or NodeState(), 0.0, roll)


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 90), st.sampled_from(KeySelection), st.integers(1, 3), st.integers(0, 99))
def test_every_key_is_there_once_and_priorities_hold(
    providers: int, keys: int, selection: KeySelection, priorities: int, seed: int
) -> None:
    targets = planned(routed(providers, keys, selection, priorities), seed).targets

    assert Counter(target.load_key for target in targets) == Counter(
        (f"p{p}", f"k{n}") for p in range(providers) for n in range(keys)
    )
    assert [target.provider.name for target in targets] == [f"p{p}" for p in range(providers) for _ in range(keys)]
    for p in range(providers):
        said = [target.key.priority for target in targets if target.key and target.provider.name == f"p{p}"]
        assert said == sorted(said)


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 90), st.integers(0, 89), st.integers(0, 99))
def test_a_pin_comes_first_wherever_its_key_is(providers: int, keys: int, home: int, seed: int) -> None:
    pin = Pin(f"p{providers - 1}", f"k{home % keys}", 100.0)
    targets = planned(routed(providers, keys, KeySelection.LEAST_LOADED), seed, pin).targets

    assert targets[0].load_key == (pin.provider, pin.key_label)
    assert len({target.load_key for target in targets}) == providers * keys


@pytest.mark.parametrize("selection", [KeySelection.LEAST_LOADED, KeySelection.WEIGHTED, KeySelection.ROUND_ROBIN])
def test_of_many_keys_each_gets_its_share(selection: KeySelection) -> None:
    """Seventy accounts that are paid for, and not the first thirty of them over and over."""
    one, node, roll = routed(1, 70, selection), NodeState(), random.Random(7).random
    first = Counter(plan(one, MODEL, Needs(), None, node, 0.0, roll).targets[0].label for _ in range(7_000))

    assert len(first) == 70
    heavy = sum(count for label, count in first.items() if int(label[1:]) % 3 == 2) / 7_000
    wanted = 23 / 70 if selection is KeySelection.ROUND_ROBIN else 3 * 23 / (24 + 2 * 23 + 3 * 23)
    assert heavy == pytest.approx(wanted, abs=0.04)


@pytest.mark.parametrize("selection", [KeySelection.LEAST_LOADED, KeySelection.WEIGHTED])
@pytest.mark.parametrize("cooling", [False, True])
def test_one_heavy_key_among_many_gets_its_half(selection: KeySelection, *, cooling: bool) -> None:
    """Whoever pays for a large account beside a hundred small ones; also where it is the next provider's."""
    one, node, roll = routed(2, 100, selection, heavy=70), NodeState(), random.Random(7).random
    for target in one.choices[0].targets if cooling else ():
        node.cooldowns.note(target, Reason.RATE_LIMITED, 10.0)
    first = Counter(plan(one, MODEL, Needs(), None, node, 0.0, roll).targets[0].load_key for _ in range(2_000))

    assert first["p1" if cooling else "p0", "k70"] / 2_000 == pytest.approx(0.5, abs=0.05)


def test_a_busy_key_waits_while_others_are_idle() -> None:
    one, node = routed(1, 200, KeySelection.LEAST_LOADED), NodeState()
    busy = one.choices[0].targets[:20]
    for target in busy:
        node.load.enter(target)
    chosen = {planned(one, seed, node=node).targets[0].label for seed in range(300)}

    assert not chosen & {target.label for target in busy}


def test_what_cools_down_among_thousands_comes_last_and_nothing_else_moves() -> None:
    """Half of an account's keys are refused at once when its organisation is at its limit."""
    one, node = routed(2, 1_000, KeySelection.PRIORITY), NodeState()
    every = [target for choice in one.choices for target in choice.targets]
    for target in every[::2]:
        node.cooldowns.note(target, Reason.RATE_LIMITED, 10.0)
    found = planned(one, 0, node=node)

    assert found.targets == every[1::2] + every[::2]
    assert found.passed_over == [(f"{each.provider.name}/{each.label}", "cooling down") for each in every[::2]]


@pytest.mark.parametrize("selection", [KeySelection.LEAST_LOADED, KeySelection.WEIGHTED, KeySelection.ROUND_ROBIN])
def test_where_the_first_provider_cools_down_the_next_ones_keys_share(selection: KeySelection) -> None:
    """All of its requests would go to one key."""
    one, node, roll = routed(2, 60, selection, priorities=2), NodeState(), random.Random(7).random
    for target in one.choices[0].targets:
        node.cooldowns.note(target, Reason.RATE_LIMITED, 10.0)
    first = Counter(plan(one, MODEL, Needs(), None, node, 0.0, roll).targets[0].load_key for _ in range(1_000))

    assert set(first) == {("p1", f"k{n}") for n in range(0, 60, 2)}
    assert max(first.values()) < 100


def test_what_has_expired_among_thousands_is_left_out_and_nothing_else_moves() -> None:
    one, node = routed(2, 1_000, KeySelection.PRIORITY, ends_s=100.0), NodeState(unix_s=200.0)
    every = [target for choice in one.choices for target in choice.targets]
    found = planned(one, 0, node=node)

    assert found.targets == every[1::2]
    assert found.passed_over == [(f"{each.provider.name}/{each.label}", "credential expired") for each in every[::2]]


@pytest.mark.parametrize("selection", KeySelection)
def test_a_plan_draws_no_more_for_ten_thousand_keys_than_for_a_few(selection: KeySelection) -> None:
    """What is drawn is what is put in order: the cost must not grow with the configuration."""
    drawn = 0

    def roll() -> float:
        nonlocal drawn
        drawn += 1
        return 0.5

    plan(routed(10, 1_000, selection), MODEL, Needs(), None, NodeState(), 0.0, roll)

    assert drawn <= 2 * MOST_ORDERED
