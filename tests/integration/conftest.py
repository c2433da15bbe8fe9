"""What the tests with real processes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.control import Control, shared_control


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """One ccr-control for those tests of a file that leave it as it was, or use names of their own."""
    with shared_control(tmp_path_factory.mktemp("control")) as running:
        yield running
