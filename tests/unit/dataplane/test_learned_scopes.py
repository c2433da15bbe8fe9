"""Two keys of one organisation are one account, on a node that learned it, on one that was told, and on one that starts later."""

from __future__ import annotations

from time import perf_counter

from ccr_data.core.amounts import Allowance
from ccr_data.core.snapshot import Key, Snapshot, Target
from ccr_data.shell.budgeting import Budgeting
from support.routing import provider, snapshot

LIMITS = Allowance(requests=10)


def told(version: int, scope: str) -> Snapshot:
    """Two keys, each with ten requests a minute."""
    keys = (Key(label, f"s-{label}", scope, limits=LIMITS) for label in "ab")
    return snapshot(provider("p", *keys), version=version)


def targets(of: Snapshot) -> list[Target]:
    return list(of.routed("m").choices[0].targets)


def room(node: Budgeting, of: Snapshot) -> int:
    """How many requests have room, over both keys."""
    count = 0
    while count < 100 and node.choose(targets(of), "m", 100, perf_counter())[0] >= 0:
        count += 1
    return count


def test_what_is_not_known_yet_counts_as_two_accounts() -> None:
    node, unknown = Budgeting(), told(1, "")
    node.follow(unknown)
    assert room(node, unknown) == 20


def test_a_node_that_is_told_counts_what_it_used_before_in_the_one_account() -> None:
    """Another node saw the answers that say it."""
    node, unknown, known = Budgeting(), told(1, ""), told(2, "organisation o-1")
    node.follow(unknown)
    for target in targets(unknown):
        for _ in range(3):
            assert node.choose([target], "m", 100, perf_counter())[0] == 0
    node.follow(known)
    assert room(node, known) == 4
    node.follow(told(3, "organisation o-1"))
    assert room(node, known) == 0, "and goes on doing so"


def test_a_node_that_starts_later_knows_at_once() -> None:
    node, known = Budgeting(), told(2, "organisation o-1")
    node.follow(known)
    assert room(node, known) == 10


def test_a_node_that_learned_it_by_itself_is_told_nothing_new() -> None:
    node, unknown, known = Budgeting(), told(1, ""), told(2, "organisation o-1")
    node.follow(unknown)
    for target in targets(unknown):
        assert node.choose([target], "m", 100, perf_counter())[0] == 0
        node.limits.note_organisation(target.scope, "o-1", perf_counter())
    node.follow(known)
    assert room(node, known) == 8


def test_who_waits_for_the_key_waits_for_the_organisation() -> None:
    """Requests keep the snapshot that they began with, which does not say it."""
    node, unknown, known = Budgeting(), told(1, ""), told(2, "organisation o-1")
    node.follow(unknown)
    assert room(node, unknown) == 20
    node.follow(known)
    assert room(node, unknown) == 0
    node.follow(told(3, ""))
    assert [node.limits.is_known_member(("p", label)) for label in "ab"] == [False, False], (
        "the control plane knows better"
    )


def test_who_waits_for_an_account_that_is_gone_has_its_limits() -> None:
    """Its key was taken out of the configuration meanwhile."""
    node, before = Budgeting(), told(1, "")
    node.follow(before)
    assert room(node, before) == 20
    node.follow(snapshot(provider("p", Key("c", "s-c", "")), version=2))
    assert room(node, before) == 0


def test_an_account_that_is_called_otherwise_has_used_what_it_has() -> None:
    """Two labels get a scope, it gets another name, and back; each time the minute goes on, also for who waits by the name before."""
    node = Budgeting()
    before = told(1, "")
    node.follow(before)
    for target in targets(before):
        for _ in range(2):
            assert node.choose([target], "m", 100, perf_counter())[0] == 0
    for version, scope in enumerate(("one", "other", "one"), 2):
        now = told(version, scope)
        node.follow(now)
        assert node.choose(targets(now), "m", 100, perf_counter())[0] == 0
    assert room(node, now) == 10 - 4 - 3
    assert room(node, told(3, "other")) == 0


def test_a_key_that_moves_to_another_account_takes_nothing_along() -> None:
    """What was used of the two is the account's that it left; the other one has its own."""
    node, before = Budgeting(), told(1, "one")
    node.follow(before)
    assert room(node, before) == 10
    keys = (Key(label, f"s-{label}", scope, limits=LIMITS) for label, scope in (("a", "one"), ("b", "two")))
    after = snapshot(provider("p", *keys), version=2)
    node.follow(after)
    assert room(node, after) == 10
