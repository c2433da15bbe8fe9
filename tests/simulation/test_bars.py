"""The bars that a simulation can hold, each as in `make simulate`."""

from __future__ import annotations

from simulate.bars import bars


def test_every_bar_holds() -> None:
    """Shares of the limits, refusals that open nothing, sessions that stay warm, failures that nobody sees."""
    found = list(bars(seed=1))

    assert [one for one in found if not one.holds] == []
    assert len(found) >= 14
