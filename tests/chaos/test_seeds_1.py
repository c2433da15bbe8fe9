"""Real processes under random faults, seeds 0 to 27: every promise is kept (docs/chaos.md)."""

from __future__ import annotations

import pytest
from chaos.playing import Result

pytestmark = pytest.mark.timeout(1200)
SEEDS = range(25)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_is_kept(seed: int, results: dict[int, Result]) -> None:
    """A seed that fails is played again with `make chaos SEED=…`."""
    result = results[seed]

    assert not result.broken, result.told()
    assert result.requests > 0
