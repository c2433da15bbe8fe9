"""The real Claude Code through the relay on every cloud: it works there as at Anthropic, and goes on when a cloud ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from ccr_demo import DemoServer
from support.clouds import BEDROCK, CLOUDS, FOUNDRY, VERTEX, Cloud, demo_settings, provider_of
from support.kinds import longer
from support.relay import KEY, config, records, relaying
from support.serving import Relay, until

from claude_code import scenarios
from claude_code.harness import Scenario, Workplace, outcome, run, running

pytestmark = [pytest.mark.claude_code, pytest.mark.timeout(300), pytest.mark.long]

FACES = [each for each in CLOUDS if not each.is_variant]
every_face = pytest.mark.parametrize("cloud", [*FACES[:2], *longer(*FACES[2:])], ids=lambda cloud: cloud.name)
BOUND = {"prefix_bound": True, "account_bound": True}


@asynccontextmanager
async def clouds(directory: Path, *faces: Cloud) -> AsyncIterator[tuple[list[DemoServer], Relay]]:
    """Clouds in this order, and the relay before them."""
    async with AsyncExitStack() as stack:
        demos = [
            await stack.enter_async_context(DemoServer(organization=each.slug, **demo_settings(each))) for each in faces
        ]
        providers = [
            {**provider_of(each, demo.url), "priority": number}
            for number, (each, demo) in enumerate(zip(faces, demos, strict=True))
        ]
        relay = relaying(directory, config(*providers))
        running_relay = await asyncio.to_thread(relay.__enter__)  # the providers answer meanwhile
        stack.callback(relay.__exit__, None, None, None)
        yield demos, running_relay


def assert_as_scripted(scenario: Scenario, text: str | None, exit_code: int, tools: list[str], errors: str) -> None:
    assert text is not None, errors
    assert fnmatchcase(text, str(scenario.text)), text
    assert exit_code == scenario.exit_code, errors
    assert tools == list(scenario.tools)


@every_face
async def test_it_works_there(cloud: Cloud, program: Path, workplace: Workplace, tmp_path: Path) -> None:
    """Tools in parallel and signed thinking; what a cloud does not take never reaches it, and nothing is repeated."""
    async with clouds(tmp_path, cloud) as ((demo,), relay):
        for scenario in (scenarios.PARALLEL_TOOLS, replace(scenarios.THINKING, settings=BOUND)):
            seen = await run(program, scenario, workplace, demo, relay.url, KEY)
            tools = [call.split(" ", maxsplit=1)[0] for call in seen.tool_calls]
            assert_as_scripted(scenario, seen.text, seen.exit_code, tools, seen.errors)
            answered = [record for record in demo.requests if "count" not in record.target and record.method == "POST"]
            assert len(answered) == scenario.requests
            assert {record.status for record in answered} == {200}
            assert demo.steps_left == 0


@pytest.mark.parametrize(
    "scenario", [scenarios.ERROR_EVENT, *longer(scenarios.TOO_LONG)], ids=lambda scenario: scenario.name
)
async def test_bedrocks_errors_are_understood(
    scenario: Scenario, program: Path, workplace: Workplace, tmp_path: Path
) -> None:
    """An exception in a stream is repeated in one piece; a prompt that is too long is not repeated at all."""
    async with clouds(tmp_path, BEDROCK) as ((demo,), relay):
        seen = await run(program, scenario, workplace, demo, relay.url, KEY)

        assert_as_scripted(scenario, seen.text, seen.exit_code, [], seen.errors)
        assert len(demo.requests) == scenario.requests


async def test_a_conversation_crosses_clouds(program: Path, workplace: Workplace, tmp_path: Path) -> None:
    """Bedrock throttles after the first turn, Vertex's token ends after the second; Foundry finishes."""
    turn = {"thinking": "Look.", "tools": [scenarios.BASH_READ]}
    scenario = replace(
        scenarios.PLAIN, prompt="Look twice.", text="Seen twice.", tools=("Bash", "Bash"), requests=3, steps=[]
    )
    async with clouds(tmp_path, BEDROCK, VERTEX, FOUNDRY) as ((bedrock, vertex, foundry), relay):
        bedrock.play(turn, {"status": 429, "times": 0})
        vertex.play(turn, {"status": 401, "times": 0})
        foundry.play({"text": "Seen twice."})
        async with running(program, scenario, workplace, relay.url, KEY) as claude:
            seen = outcome(*await claude.end(), foundry)
        await asyncio.to_thread(until, lambda: len(records(relay)) >= 3, "all records")
        served = [record["provider"] for record in records(relay) if record["endpoint"] == "messages"]

    tools = [call.split(" ", maxsplit=1)[0] for call in seen.tool_calls]
    assert_as_scripted(scenario, seen.text, seen.exit_code, tools, seen.errors)
    assert served == ["bedrock", "vertex", "foundry"]
