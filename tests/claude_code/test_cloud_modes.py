"""Claude Code can speak to clouds itself. What reaches a cloud through the relay is what it would have sent there on its own.

A second reference beside the official SDK (tests/integration/test_cloud_requests.py), for what Claude Code alone knows: which of its
features it leaves out where, and under which names.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ccr_demo import DemoServer, Record
from support.clouds import (
    ACCESS_KEY,
    BEARER,
    BEDROCK,
    LOCATION,
    MANTLE,
    PROJECT,
    REGION,
    SECRET_KEY,
    SESSION_TOKEN,
    VERTEX,
    Cloud,
    demo_settings,
    provider_of,
)
from support.kinds import longer
from support.relay import KEY, config, relaying

from claude_code import scenarios
from claude_code.harness import Scenario, Workplace, running

pytestmark = [pytest.mark.claude_code, pytest.mark.timeout(300), pytest.mark.long]

AWS = {
    "AWS_REGION": REGION,
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_SESSION_TOKEN": SESSION_TOKEN,
}


@dataclass(frozen=True)
class Mode:
    """How Claude Code is told to speak to a cloud, and where it and the relay differ on purpose."""

    cloud: Cloud
    variable: str  # for the base URL
    environment: Mapping[str, str]
    more_betas: frozenset[str] = frozenset()  # that the relay sends
    fewer_betas: frozenset[str] = frozenset()  # that it does not


MODES = (
    Mode(
        BEDROCK,
        "ANTHROPIC_BEDROCK_BASE_URL",
        {"CLAUDE_CODE_USE_BEDROCK": "1", **AWS},
        # Claude Code has it in the header only; models that need it for `effort` need it in the body.
        more_betas=frozenset({"effort-2025-11-24"}),
    ),
    Mode(MANTLE, "ANTHROPIC_BEDROCK_MANTLE_BASE_URL", {"CLAUDE_CODE_USE_MANTLE": "1", **AWS}),
    Mode(
        VERTEX,
        "ANTHROPIC_VERTEX_BASE_URL",
        {
            "CLAUDE_CODE_USE_VERTEX": "1",
            "CLAUDE_CODE_SKIP_VERTEX_AUTH": "1",
            "ANTHROPIC_CUSTOM_HEADERS": f"Authorization: Bearer {BEARER}",
            "CLOUD_ML_REGION": LOCATION,
            "ANTHROPIC_VERTEX_PROJECT_ID": PROJECT,
        },
        fewer_betas=frozenset(
            {"web-search-2025-03-05"}
        ),  # Claude Code adds it there; through a relay it searches otherwise
    ),
)


async def last_request(demo: DemoServer, program: Path, scenario: Scenario, workplace: Workplace, url: str) -> Record:
    """Of a conversation that went well. Claude Code first asks Bedrock which models there are."""
    demo.reset()
    demo.play(*({**step, "when": {"stream": True}} for step in scenario.steps))
    async with running(program, scenario, workplace, url, KEY) as claude:
        exit_code, output, errors = await claude.end()
    assert exit_code == 0, output + errors
    return demo.requests[-1]


def betas(record: Record) -> set[str]:
    return set(record.json().get("anthropic_beta") or (record.header("anthropic-beta") or "").split(","))


def told(record: Record) -> Any:
    """Everything else of the body, without its words: Claude Code tells the model by which name and way it is reached."""
    return _without_words({name: value for name, value in record.json().items() if name != "anthropic_beta"})


def _without_words(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_words(each) for each in value]
    if isinstance(value, dict):
        return {name: "…" if name == "text" else _without_words(each) for name, each in value.items()}
    return value


@pytest.mark.parametrize("mode", [MODES[0], *longer(*MODES[1:])], ids=lambda mode: mode.cloud.name)
async def test_the_relay_sends_what_claude_code_would(
    mode: Mode, program: Path, workplace: Workplace, tmp_path: Path
) -> None:
    async with DemoServer(**demo_settings(mode.cloud)) as demo:
        own_way = {**mode.environment, mode.variable: demo.url + mode.cloud.prefix}
        alone = replace(scenarios.PLAIN, environment={**own_way, "ANTHROPIC_BASE_URL": "", "ANTHROPIC_AUTH_TOKEN": ""})
        reference = await last_request(demo, program, alone, workplace, "")
        relay = relaying(tmp_path, config(provider_of(mode.cloud, demo.url)))
        door = await asyncio.to_thread(relay.__enter__)  # the provider answers meanwhile
        try:
            candidate = await last_request(demo, program, scenarios.PLAIN, workplace, door.url)
        finally:
            relay.__exit__(None, None, None)

    assert candidate.target == reference.target
    assert told(candidate) == told(reference), json.dumps(told(candidate))[:300]
    assert betas(candidate) == betas(reference) - mode.fewer_betas | mode.more_betas
