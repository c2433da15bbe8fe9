"""Nobody is told the same thing again and again."""

from __future__ import annotations

from ccr_control.core.alerts import CALM_BELOW, SENT_AFTER_S, Alerts
from ccr_control.core.events import Event
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


DAY, MONTH = "clients/a/budget/day", "clients/a/budget/month"
NOON = 1_795_262_400.0  # 21 November 2026
HOUR_S = 3600.0


@given(
    st.sampled_from([DAY, MONTH, "scopes/zai/a"]), st.sampled_from(["near", "reached"]), st.floats(0, 60 * 24 * HOUR_S)
)
def test_another_life_tells_again_only_what_may_be_news(resource: str, level: str, age_s: float) -> None:
    """Whoever is woken by alerts is not to be woken by every upgrade; and not to miss the next day's, or one that was not sent."""
    alerts = Alerts()
    alerts.resume([Event("alert", f"budget.{level}", resource, at_s=NOON - age_s)], NOON)
    is_told = age_s > SENT_AFTER_S and (
        (resource == DAY and age_s <= 12 * HOUR_S) or (resource == MONTH and age_s <= (20 * 24 + 12) * HOUR_S)
    )
    assert [one.level for one in alerts.new({resource: 0.9}, NEAR)] == ([] if is_told else ["near"])
    went_on = [one.level for one in alerts.new({resource: 1.0}, NEAR)]
    assert went_on == ([] if is_told and level == "reached" else ["reached"])
