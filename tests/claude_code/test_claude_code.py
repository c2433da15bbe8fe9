"""The real Claude Code, directly at the scripted provider and through the relay: nobody can tell the difference."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from ccr_demo import DemoServer
from support.kinds import longer

from claude_code import scenarios
from claude_code.conftest import Door
from claude_code.harness import Outcome, Scenario, Sent, Workplace, outcome, prepare, run, running

pytestmark = [pytest.mark.claude_code, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    "scenario", [*scenarios.EACH_TIME, *longer(*scenarios.OTHERS)], ids=lambda scenario: scenario.name
)
async def test_through_the_relay_as_directly(
    scenario: Scenario, program: Path, demo: DemoServer, direct: Door, relay: Door, workplace: Workplace
) -> None:
    """Same text, same tool calls and results, same exit code, and the provider gets the same requests."""
    without = await run(program, scenario, workplace, demo, direct.url, direct.key)
    assert_as_scripted(scenario, without, demo)  # what the relay is measured against

    through = await run(program, scenario, workplace, demo, relay.url, relay.key)

    assert_as_scripted(scenario, through, demo)
    assert of_the_conversation(through, scenario) == of_the_conversation(without, scenario)


def assert_as_scripted(scenario: Scenario, seen: Outcome, demo: DemoServer) -> None:
    """The outcome that the scenario promises."""
    if scenario.text is None:
        assert seen.text is None, seen.errors
    else:
        assert seen.text is not None, seen.errors
        assert fnmatchcase(seen.text, scenario.text), seen.text
    assert seen.exit_code == scenario.exit_code, seen.errors
    assert [call.split(" ", maxsplit=1)[0] for call in seen.tool_calls] == list(scenario.tools)
    assert len(seen.tool_results) == len(scenario.tools)
    assert len(demo.message_requests()) == scenario.requests
    assert demo.api.script.steps_left == scenario.steps_left, "the provider was not asked for all of its answers"


def of_the_conversation(seen: Outcome, scenario: Scenario) -> Outcome:
    """The outcome without what the relay answers or asks by itself: models and probes."""
    requests = [each for each in seen.requests if is_of_the_conversation(each)]
    if scenario.may_repeat_whole:
        requests = [requests[0], *map(without_its_form, requests[1:])]
    return replace(seen, requests=requests)


def without_its_form(request: Sent) -> Sent:
    """A request without saying whether the answer shall be streamed: then `max_tokens` differs as well."""
    return replace(request, body=re.sub(r'"(stream|max_tokens)":\w+', r'"\1":…', request.body))


def is_of_the_conversation(request: Sent) -> bool:
    return request.target.partition("?")[0] in ("/v1/messages", "/v1/messages/count_tokens")


async def test_signed_thinking_comes_back_untouched_through_the_relay(
    program: Path, demo: DemoServer, relay: Door, workplace: Workplace
) -> None:
    """Bound to the whole conversation before it: a relay that rewrites anything would be found out."""
    bound = replace(scenarios.THINKING, settings={"prefix_bound": True, "account_bound": True})

    assert_as_scripted(bound, await run(program, bound, workplace, demo, relay.url, relay.key), demo)

    blocks = demo.message_requests()[1].json()["messages"][-3:]
    kinds = [block["type"] for message in blocks if message["role"] == "assistant" for block in message["content"]]
    assert kinds == ["thinking", "redacted_thinking", "text", "tool_use"]


@pytest.fixture(params=["direct", "relay"])
def door(request: pytest.FixtureRequest) -> Door:
    """Both ways to the provider."""
    found: Door = request.getfixturevalue(request.param)
    return found


async def test_an_interrupt_closes_the_upstream_connection(
    door: Door, program: Path, demo: DemoServer, workplace: Workplace
) -> None:
    """Within a second, although the provider sends nothing that could fail."""
    scenario = scenarios.ENDLESS
    prepare(demo, scenario)
    async with running(program, scenario, workplace, door.url, door.key) as claude:
        await demo.until(lambda: bool(demo.message_requests()) and demo.message_requests()[0].events_sent == 1, 60)
        interrupted_s = claude.interrupt()
        await demo.until(lambda: demo.stats.aborted_streams == 1)
        seen = outcome(*await claude.end(), demo)

    aborted_s = demo.message_requests()[0].aborted_s
    assert aborted_s is not None
    assert aborted_s - interrupted_s < 1.0
    assert demo.stats.open_streams == 0
    assert seen.exit_code == scenario.exit_code
    assert len(demo.message_requests()) == scenario.requests


async def test_it_finds_the_models_through_the_relay(
    program: Path, demo: DemoServer, relay: Door, workplace: Workplace
) -> None:
    """The relay answers discovery with the models of its providers."""
    await run(program, scenarios.DISCOVERY, workplace, demo, relay.url, relay.key)

    cached = json.loads((workplace.home / ".claude" / "cache" / "gateway-models.json").read_text())
    assert [model["id"] for model in cached["models"]] == list(demo.api.settings.models)
    assert cached["baseUrl"] == relay.url
