"""What the tests with real processes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support.control import Control, shared_control
from support.relay import config, provider, reconfigured, relaying
from support.serving import Relay


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """One ccr-control for those tests of a file that leave it as it was, or use names of their own."""
    with shared_control(tmp_path_factory.mktemp("control")) as running:
        yield running


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Relay]]:
    """Gives one relay for a file the configuration of each test, whose providers have names that no other test uses."""
    with relaying(tmp_path_factory.mktemp("relay"), config(provider("nobody", "http://127.0.0.1:9"))) as relay:
        yield lambda text: reconfigured(relay, text)
