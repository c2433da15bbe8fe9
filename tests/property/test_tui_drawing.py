"""What always holds of figures, tables and filters of the dashboard."""

from __future__ import annotations

import string
from itertools import pairwise

from ccr_rpc.v1 import records_pb2, usage_pb2
from ccr_tui.core import chrome, figures, filters
from ccr_tui.core.linking import LONGEST_WAIT_S, wait_s
from ccr_tui.core.table import GAP, Column, Stretch, breaks, cells, cut, fit
from hypothesis import given
from hypothesis import strategies as st

AMOUNTS = st.one_of(st.integers(0, 10**18), st.integers(0, 10**6))
COLUMNS = st.lists(
    st.builds(Column, st.text(max_size=8), st.integers(0, 40), st.integers(0, 9), st.booleans(), st.integers(0, 3)),
    max_size=14,
)


@given(AMOUNTS)
def test_figures_are_short(amount: int) -> None:
    """Or a column of a table would cut them, and a cut number is a wrong one."""
    assert len(figures.count(amount)) <= 7
    assert len(figures.rate(amount / 1000)) <= 7
    assert len(figures.money(min(amount, 10**15))) <= 9
    assert len(figures.size(min(amount, 10**15))) <= 9
    assert len(figures.age(min(amount, 10**10))) <= 7


@given(st.floats(0, 1e12, allow_nan=False), st.floats(0, 1e12, allow_nan=False))
def test_what_is_more_never_reads_as_less(one: float, other: float) -> None:
    """Of times in one unit: rounding keeps the order."""
    less, more = sorted((one, other))
    if figures.micros(less).endswith(" ms") and figures.micros(more).endswith(" ms"):
        assert float(figures.micros(less)[:-3]) <= float(figures.micros(more)[:-3])


@given(st.lists(st.floats(0, 1e9, allow_nan=False), max_size=400), st.integers(0, 200))
def test_sparklines_are_as_wide_as_told(values: list[float], width: int) -> None:
    """And never hide that there was something."""
    drawn = figures.sparkline(values, width)
    assert len(drawn) == width
    if width and max(values, default=0) > 0:
        assert "█" in drawn
    assert figures.squeezed(values, max(1, width)) == values or max(figures.squeezed(values, max(1, width))) == max(
        values
    )


@given(AMOUNTS, AMOUNTS, AMOUNTS, st.integers(0, 80))
def test_bars_are_as_wide_as_told(used: int, leased: int, limit: int, width: int) -> None:
    """Full only if it is, empty only if nothing was used."""
    drawn = figures.bar(used, leased, limit, width)
    assert len(drawn) == width
    if limit and width > 1:
        assert (drawn == "█" * width) == (used >= limit)
        assert drawn.startswith("█") == (used > 0)


@given(COLUMNS, st.integers(0, 300))
def test_a_table_fits(columns: list[Column], room: int) -> None:
    """Whatever the terminal: columns are left out in order, and their order stays."""
    found = fit(columns, room)
    assert sum(width for _, width in found) + GAP * max(0, len(found) - 1) <= room or not found or room == 0
    numbers = [number for number, _ in found]
    assert numbers == sorted(numbers)
    left_out = [column.rank for number, column in enumerate(columns) if number not in numbers and column.rank]
    kept = [columns[number].rank for number in numbers]
    assert not left_out or not kept or min(left_out) >= max(kept) or max(kept) == 0


@given(st.text(max_size=60), st.integers(0, 40), st.booleans())
def test_a_cell_is_as_wide_as_told(text: str, width: int, is_number: bool) -> None:
    """Also for wide and combining characters, and whatever a name may hold."""
    said = cut(text, width, is_number=is_number)
    assert cells(said) == width
    assert not any(ord(one) < 32 or 0x7F <= ord(one) < 0xA0 for one in said)


@given(st.text("ab ·界", max_size=120), st.integers(1, 40))
def test_a_long_line_is_broken_into_all_of_it(text: str, width: int) -> None:
    """Nothing is lost but the blank that a line ends with; words stay whole where there is a blank soon enough."""
    narrow = text.replace("界", "c")  # one column each, so that columns are places in the text
    found = breaks(narrow, width)
    assert all(end - begin <= width for begin, end in found)
    assert found[0][0] == 0
    assert found[-1][1] == len(narrow)
    for (_, end), (begin, _) in pairwise(found):
        assert begin == end or (begin == end + 1 and narrow[end] == " ")
        assert begin == end + 1 or " " not in narrow[end - (width - 1) // 2 : end + 1]
    assert all(end - begin <= width for begin, end in breaks(text, width))


def test_what_a_column_draws_is_as_wide_as_it() -> None:
    """A bar is no word that could be cut."""
    bar = Stretch.made(lambda width: figures.bar(1, 2, 4, width))
    assert [cut(bar, width) for width in (4, 8)] == ["█▒··", "██▒▒····"]


NAMES = st.text(string.ascii_letters + string.digits + " -_.*'\"\\/é$", max_size=12)


@given(
    st.builds(
        records_pb2.RecordFilter,
        client=NAMES,
        session=NAMES,
        provider=NAMES,
        model=NAMES,
        outcome=st.sampled_from(list(usage_pb2.Outcome.values())),
        min_status=st.one_of(st.just(0), st.integers(100, 599)),
        with_failed_attempt=st.booleans(),
        min_total_us=st.integers(0, 10**12),
        key_label=NAMES,
        route=NAMES,
    )
)
def test_a_filter_is_its_words(one: records_pb2.RecordFilter) -> None:
    """What is shown above the list can be edited and is still the same filter."""
    assert filters.parse(filters.text_of(one)) == one


@given(st.text(max_size=40))
def test_any_words_are_a_filter_or_refused(text: str) -> None:
    """Nothing else can happen to what somebody types."""
    try:
        found = filters.parse(text)
    except filters.BadFilter:
        return
    assert filters.parse(filters.text_of(found)) == found


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_grow_and_are_bounded(failures: int, roll: float) -> None:
    """A control plane that comes back is noticed within seconds; one that is gone is not hammered."""
    assert 0.1 < wait_s(failures, roll) <= LONGEST_WAIT_S
    assert wait_s(failures, 0.0) <= wait_s(failures + 1, 0.0)


@given(st.integers(10, 300), st.lists(st.tuples(st.text(min_size=1, max_size=5), st.text(max_size=15)), max_size=12))
def test_help_and_quit_are_always_in_sight(width: int, own: list[tuple[str, str]]) -> None:
    """Whoever is lost finds the way out."""
    assert chrome.hints(own, width)[-2:] == [("?", "help"), ("q", "quit")]
