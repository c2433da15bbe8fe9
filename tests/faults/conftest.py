"""What the tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.load import SteadyUpstream


@pytest.fixture
def upstream() -> Iterator[SteadyUpstream]:
    """A provider for one test."""
    with SteadyUpstream() as steady:
        yield steady
