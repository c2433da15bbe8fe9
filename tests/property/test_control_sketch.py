"""Sketches: accurate, bounded, and the same however they were merged."""

from __future__ import annotations

import math

from ccr_control.core.sketch import ACCURACY, MAX_BUCKETS, MAX_VALUE, Sketch
from hypothesis import given
from hypothesis import strategies as st

values = st.one_of(st.integers(0, 200), st.integers(0, MAX_VALUE), st.floats(0, 40).map(lambda e: int(2**e)))
shares = st.lists(st.floats(0.001, 1), min_size=1, max_size=5).map(sorted)


def exact(sorted_values: list[int], share: float) -> int:
    """The smallest value that so many of them do not exceed."""
    return sorted_values[max(1, math.ceil(share * len(sorted_values))) - 1]


@given(st.lists(values, min_size=1, max_size=200), shares)
def test_a_quantile_is_within_the_accuracy_of_the_exact_one(counted: list[int], asked: list[float]) -> None:
    """Operators compare providers by these figures."""
    counted.sort()
    for share, estimate in zip(asked, Sketch(counted).quantiles(asked), strict=True):
        truth = exact(counted, share)
        assert abs(estimate - truth) <= ACCURACY * truth


@given(st.lists(st.lists(values, max_size=30), max_size=6))
def test_merging_in_any_grouping_is_the_same_as_counting_everything(parts: list[list[int]]) -> None:
    """Batches arrive in any order from any node."""
    from_left, from_right = Sketch(), Sketch()
    for part in parts:
        from_left.merge(Sketch(part))
    for part in reversed(parts):
        longer = Sketch(part)
        longer.merge(from_right)
        from_right = longer
    assert from_left == from_right == Sketch(value for part in parts for value in part)


@given(st.lists(values, max_size=50), st.lists(values, max_size=50))
def test_what_was_merged_can_be_taken_away(kept: list[int], passing: list[int]) -> None:
    """The window forgets its oldest second this way."""
    sketch = Sketch(kept)
    sketch.merge(Sketch(passing))
    sketch.subtract(Sketch(passing))
    assert sketch == Sketch(kept)
    assert len(sketch) == len(kept)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_absurd_values_take_no_more_room(counted: list[int]) -> None:
    """A broken node must not make the control plane grow."""
    sketch = Sketch(counted)
    assert 0 <= sketch.quantiles([1.0])[0] <= MAX_VALUE * (1 + ACCURACY)


def test_the_number_of_buckets_is_bounded() -> None:
    sketch = Sketch(int(1.005**i) for i in range(-5, 20_000))
    assert len(sketch._counts) <= MAX_BUCKETS < 1500


def test_an_empty_sketch_answers_zero() -> None:
    assert Sketch().quantiles([0.5, 0.99]) == [0, 0]
