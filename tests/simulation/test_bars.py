"""The bars that a simulation can hold, each as in `make simulate`."""

from __future__ import annotations

import pytest
from simulate.bars import RUNS


@pytest.mark.parametrize("run", RUNS)
def test_every_bar_holds(run: str) -> None:
    """Shares of the limits, refusals that open nothing, sessions that stay warm, failures that nobody sees."""
    found = list(RUNS[run](1))

    assert found
    assert [one for one in found if not one.holds] == []
