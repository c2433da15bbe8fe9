"""One demo provider and an official client for each test."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from ccr_demo import DemoServer


@pytest.fixture
async def demo() -> AsyncIterator[DemoServer]:
    async with DemoServer() as server:
        yield server


@pytest.fixture
async def client(demo: DemoServer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=demo.url, api_key="sk-demo", max_retries=0) as each:
        yield each


@pytest.fixture
def ask() -> dict[str, Any]:
    """The least that a request needs."""
    return {"model": "claude-opus-5", "max_tokens": 4096, "messages": [{"role": "user", "content": "hi"}]}
