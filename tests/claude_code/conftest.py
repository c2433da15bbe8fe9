"""What the runs of Claude Code need: the program, a provider, and a relay in front of it.

CCR_CLAUDE_CODE           another Claude Code than the pinned one
CCR_REQUIRE_CLAUDE_CODE   1: fail instead of skipping where it cannot be installed (CI sets it)
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ccr_demo import DemoServer
from support.serving import REAL_SERVE, environment, served

from claude_code.harness import Workplace
from claude_code.install import CannotInstall, claude_code

PROVIDER_KEY = "sk-demo-provider"
RELAY_KEY = "relay-key-of-claude-code"
MODELS = ["claude-opus-5-5", "claude-sonnet-5-5"]

CONFIG = """\
version: 1
server: {{listen: "127.0.0.1:0", auth: {{keys: [{{name: tests, key: "{relay_key}"}}]}}}}
control: {{listen: "127.0.0.1:0"}}
providers:
  - name: demo
    type: anthropic-compatible
    base_url: "{demo_url}"
    allow_private: true
    models: [{models}]
    keys: [{{label: demo, key: "{provider_key}"}}]
"""


@dataclass(frozen=True)
class Door:
    """Where Claude Code is pointed at, and the key for it."""

    url: str
    key: str


@pytest.fixture(scope="session")
def program() -> Path:
    """The real Claude Code; without it the tests are skipped, or fail where it is required."""
    try:
        return claude_code()
    except CannotInstall as error:
        if os.environ.get("CCR_REQUIRE_CLAUDE_CODE") == "1":
            pytest.fail(f"Claude Code is required here and cannot be installed: {error}")
        pytest.skip(f"CLAUDE CODE IS MISSING, the relay is not tested with it: {error}")


@pytest.fixture
async def demo() -> AsyncIterator[DemoServer]:
    """The scripted provider; only the given key opens it."""
    async with DemoServer(good_keys=[PROVIDER_KEY], models=MODELS) as server:
        yield server


@pytest.fixture
def direct(demo: DemoServer) -> Door:
    """No relay."""
    return Door(demo.url, PROVIDER_KEY)


@pytest.fixture
async def relay(demo: DemoServer, tmp_path: Path) -> AsyncIterator[Door]:
    """`ccr serve` in front of the provider."""
    config = CONFIG.format(relay_key=RELAY_KEY, demo_url=demo.url, provider_key=PROVIDER_KEY, models=", ".join(MODELS))
    folder = tmp_path / "relay"
    folder.mkdir()
    with served(folder, config, command=REAL_SERVE, env=environment()) as running:
        await asyncio.to_thread(running.wait_ready)  # the provider answers meanwhile
        yield Door(running.url, RELAY_KEY)


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """Home and project of the runs, at the same place for all runs of a test."""
    return Workplace(tmp_path / "work")
