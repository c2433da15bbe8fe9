"""What the tests of upgrades share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.load import SteadyUpstream
from support.releases import VERSIONS, unpack


@pytest.fixture(scope="module", params=VERSIONS)
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of each release that is kept."""
    return unpack(request.param, tmp_path_factory.mktemp("releases"))


@pytest.fixture
def upstream() -> Iterator[SteadyUpstream]:
    """A provider for one test."""
    with SteadyUpstream() as steady:
        yield steady
