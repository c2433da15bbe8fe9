"""Ten thousand hours of a credential: what is handed out has not ended, and one search for it runs at a time."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import inf

import pytest
from ccr_control.core.refreshing import (
    FIRST_RETRY_S,
    LONGEST_RETRY_S,
    REFUSED_PAUSE_S,
    Standing,
    begun,
    failed,
    found,
    is_due,
    is_usable,
    refused,
    wakes_s,
)
from hypothesis import given, settings
from hypothesis import strategies as st

HOURS = 10_000
BEGIN_S = 1_800_000_000.0


@dataclass
class World:
    """A cloud that hands out credentials, and a keeper that acts on what the core says. Time jumps from event to event."""

    dice: random.Random
    lifetime_s: tuple[float, float]
    search_s: tuple[float, float]
    failing: float  # share of the searches
    refusals_s: float  # between two refusals, on average
    now_s: float = BEGIN_S
    standing: Standing = field(default_factory=lambda: Standing(next_s=BEGIN_S))
    material_s: float | None = None  # the true end of what the keeper holds
    searches: list[float] = field(default_factory=list)  # the ends of those that run
    searched: int = 0
    without_s: float = 0.0  # time without anything usable, after the first
    used: int = 0

    def run(self, until_s: float) -> None:
        refusal_s = self.now_s + self.dice.expovariate(1 / self.refusals_s)
        use_s = self.now_s + 1
        while self.now_s < until_s:
            before_s, was_usable = self.now_s, is_usable(self.standing, self.now_s)
            wake_s = wakes_s(self.standing, self.now_s)
            self.now_s = max(self.now_s, min([wake_s, refusal_s, use_s, *self.searches]))
            if self.material_s is not None and not was_usable:
                self.without_s += self.now_s - before_s
            for end_s in [end_s for end_s in self.searches if end_s <= self.now_s]:
                self.searches.remove(end_s)
                self.end_search()
            if refusal_s <= self.now_s:
                self.standing = refused(self.standing, self.now_s)
                refusal_s = self.now_s + self.dice.expovariate(1 / self.refusals_s)
            if is_due(self.standing, self.now_s):
                self.begin_search()
            if use_s <= self.now_s:
                self.use()
                use_s = self.now_s + self.dice.uniform(1, 4000)

    def begin_search(self) -> None:
        self.standing = begun(self.standing)
        self.searches.append(self.now_s + self.dice.uniform(*self.search_s))
        self.searched += 1
        assert len(self.searches) == 1, "two searches at a time"

    def end_search(self) -> None:
        if self.dice.random() < self.failing:
            before = self.standing
            self.standing = failed(self.standing, "no", self.now_s, self.dice.random())
            assert self.standing.expires_s == before.expires_s, "what was found before stays"
        else:
            self.material_s = self.now_s + self.dice.uniform(*self.lifetime_s)
            self.standing = found(self.standing, self.material_s, self.now_s, self.dice.random())
            assert self.now_s < self.standing.next_s < self.material_s, "renewed ahead of its end"

    def use(self) -> None:
        if is_usable(self.standing, self.now_s):
            assert self.material_s is not None
            assert self.now_s < self.material_s, "an ended credential was used"
            self.used += 1


@pytest.mark.parametrize("seed", range(3))
def test_ten_thousand_hours_in_which_everything_goes_wrong(seed: int) -> None:
    """Half of the searches fail, they take minutes, lifetimes are anything, and the provider refuses now and then."""
    world = World(random.Random(seed), (20, 7200), (0.01, 240), 0.5, 1800)
    world.run(BEGIN_S + HOURS * 3600)

    assert world.used > HOURS
    assert world.searched < HOURS * 3600 / FIRST_RETRY_S / 10


@pytest.mark.parametrize("seed", range(3))
def test_ten_thousand_hours_of_a_cloud_that_mostly_works_have_no_gap(seed: int) -> None:
    """Every fifth search fails; tokens live for an hour: there is always one to use."""
    world = World(random.Random(seed), (3000, 3600), (0.01, 20), 0.2, 36_000)
    world.run(BEGIN_S + HOURS * 3600)

    assert world.without_s == 0
    assert world.searched < HOURS * 3.5


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    lifetime=st.floats(1, 100_000),
    spread=st.floats(1, 20),
    search=st.floats(0, 1000),
    failing=st.floats(0, 0.99),
)
def test_whatever_the_cloud_does_nothing_ended_is_used(
    seed: int, lifetime: float, spread: float, search: float, failing: float
) -> None:
    world = World(random.Random(seed), (lifetime, lifetime * spread), (0, search), failing, 600)
    world.run(BEGIN_S + min(100 * 3600, 100 * lifetime))


@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=40))
def test_failures_are_tried_again_later_and_later(rolls: list[float]) -> None:
    """A cloud that is down is not hammered, and one that comes back is not waited for longer than minutes."""
    standing, now_s = Standing(next_s=0.0), 0.0
    for number, roll in enumerate(rolls):
        standing = failed(begun(standing), "no", now_s, roll)
        pause_s = standing.next_s - now_s
        usual_s = min(FIRST_RETRY_S * 2.0**number, LONGEST_RETRY_S)
        assert 0.79 * usual_s <= pause_s <= 1.21 * usual_s
        now_s = standing.next_s


def test_a_refusal_starts_a_search_at_once_but_not_again_and_again() -> None:
    """A 403 may mean that the credential was revoked, and may mean that it never sufficed."""
    standing = found(begun(Standing(next_s=0.0)), 3600.0, 1.0, 0.5)
    assert is_due(refused(standing, 100.0), 100.0)

    again = found(begun(refused(standing, 100.0)), 3600.0, 101.0, 0.5)
    assert not is_due(refused(again, 100.0 + REFUSED_PAUSE_S - 1), 100.0 + REFUSED_PAUSE_S - 1)
    assert is_due(refused(again, 100.0 + REFUSED_PAUSE_S), 100.0 + REFUSED_PAUSE_S)


def test_a_credential_that_is_refused_as_soon_as_it_is_found_is_looked_for_again() -> None:
    """It may come out of a library's cache; the client is waiting for a better one."""
    standing = found(begun(Standing(next_s=0.0)), 3600.0, 1.0, 0.5)

    assert is_due(refused(standing, 2.0), 2.0)


def test_what_has_expired_already_was_not_found() -> None:
    """Of a cloud whose clock differs, or of a file that nobody renewed."""
    standing = found(begun(Standing(next_s=0.0)), 50.0, 60.0, 0.5)

    assert not is_usable(standing, 60.0)
    assert "expired" in standing.problem
    assert standing.next_s > 60.0


def test_what_has_no_end_is_never_renewed() -> None:
    standing = found(begun(Standing(next_s=0.0)), None, 1.0, 0.5)

    assert wakes_s(standing, 10**9) == inf
    assert is_usable(standing, 10**9)
