"""Nobody is told the same thing again and again."""

from __future__ import annotations

from ccr_control.core.alerts import CALM_BELOW, Alerts
from hypothesis import given
from hypothesis import strategies as st

NEAR = 0.8


@given(st.lists(st.floats(0, 2)))
def test_each_level_is_told_once_until_it_was_well_below(shares: list[float]) -> None:
    alerts, told = Alerts(), ""
    for share in shares:
        found = [alert.level for alert in alerts.new({"x": share}, NEAR)]
        level = "reached" if share >= 1 else "near" if share >= NEAR else ""
        if level and (not told or (told == "near" and level == "reached")):
            assert found == [level]
            told = level
        else:
            assert not found
        if share < NEAR * CALM_BELOW:
            told = ""


def test_what_is_gone_is_forgotten() -> None:
    """A client that comes back with a new budget is told of anew; memory is that of what there is."""
    alerts = Alerts()
    assert alerts.new({"x": 1.0}, NEAR)
    assert not alerts.new({}, NEAR)
    assert alerts.new({"x": 1.0}, NEAR)
