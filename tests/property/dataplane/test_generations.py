"""A request that gets another generation's model is made fit for it, and nothing else of it changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ccr_data.core.generations import Generation, adjusted, generation_of
from ccr_data.providers.anthropic_shaped import folded
from hypothesis import given
from hypothesis import strategies as st

# docs/providers/anthropic.md, thinking by model: enabled with a budget, adaptive, disabled
TAKES = {
    "claude-3-5-haiku-20241022": (True, False, True),
    "claude-sonnet-4-20250514": (True, False, True),
    "claude-opus-4-1-20250805": (True, False, True),
    "claude-sonnet-4-5-20250929": (True, False, True),
    "us.anthropic.claude-haiku-4-5-20251001-v1:0": (True, False, True),
    "claude-sonnet-4-6": (True, True, True),
    "anthropic.claude-opus-4-7": (False, True, True),
    "claude-opus-4-8": (False, True, True),
    "claude-sonnet-5": (False, True, True),
    "claude-opus-5": (False, True, True),
    "claude-fable-5-1[1m]": (False, True, False),
    "claude-mythos-5": (False, True, False),
    "claude-opus-5-5": (False, True, False),
    "claude-sonnet-5-5": (False, True, False),
}


@pytest.mark.parametrize("model", TAKES)
def test_generations_are_known_by_name(model: str) -> None:
    found = generation_of(model)
    assert found is not None
    assert (found.budget, found.adaptive, found.disabled) == TAKES[model]
    assert found.system_turns == ("4-8" in model or "-5" in model.replace("4-5", "").replace("3-5", ""))


@pytest.mark.parametrize("model", ["glm-4.7", "kimi-k3", "claude", "claude-custom", "gpt-5-5", ""])
def test_other_names_are_of_no_generation(model: str) -> None:
    """A guess would be worse than the provider's own refusal."""
    assert generation_of(model) is None


def accepted(body: dict[str, Any], to: Generation) -> bool:
    """Whether a model of that generation takes it: what the table says, written down once more."""
    thinking = body.get("thinking", {}).get("type")
    if thinking == "enabled":
        budget = body["thinking"]["budget_tokens"]
        if not to.budget or not 1024 <= budget < body["max_tokens"]:
            return False
    if (thinking, to.adaptive) == ("adaptive", False) or (thinking, to.disabled) == ("disabled", False):
        return False
    if thinking == "between_tools" and not to.between_tools:
        return False
    if body.get("tool_choice", {}).get("type") in ("any", "tool") and not to.forced_tools:
        return False
    if "effort" in body.get("output_config", {}) and not to.effort:
        return False
    if body["max_tokens"] > 64_000 and not to.long_answers:
        return False
    return to.system_turns or all(turn["role"] != "system" for turn in body["messages"])


THINKING = st.sampled_from(
    [
        {},
        {"thinking": {"type": "adaptive"}},
        {"thinking": {"type": "adaptive", "display": "omitted"}},
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "between_tools"}},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}},
    ]
)
CHOICE = st.sampled_from(
    [
        {},
        {"tool_choice": {"type": "any"}},
        {"tool_choice": {"type": "tool", "name": "Read", "disable_parallel_tool_use": True}},
        {"tool_choice": {"type": "auto"}},
        {"tool_choice": {"type": "none"}},
    ]
)
OUTPUT = st.sampled_from(
    [{}, {"output_config": {"effort": "high"}}, {"output_config": {"effort": "low", "format": {"type": "json_schema"}}}]
)
TURNS = st.lists(
    st.builds(
        lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant", "system"]), st.text()
    ),
    max_size=5,
)


@given(
    model=st.sampled_from(sorted(TAKES)),
    parts=st.tuples(THINKING, CHOICE, OUTPUT),
    turns=TURNS,
    max_tokens=st.sampled_from([3000, 9000, 64_000, 128_000]),
)
def test_what_comes_out_is_taken(
    model: str, parts: tuple[dict[str, Any], ...], turns: list[Any], max_tokens: int
) -> None:
    """It is fit, adjusting it again changes nothing, and turns and unknown fields are as they were."""
    asked: dict[str, Any] = {"model": "m", "max_tokens": max_tokens, "messages": turns, "x_odd": {"thinking": 1}}
    for part in parts:
        asked |= part
    body = json.dumps(asked, ensure_ascii=False, indent=1).encode()
    to = generation_of(model)
    assert to is not None
    out = adjusted(body, to, folded)
    found = json.loads(out)
    assert accepted(found, to)
    assert adjusted(out, to, folded) == out
    assert found["x_odd"] == asked["x_odd"]
    assert not (to.system_turns and found["messages"] != turns)
    if accepted(asked, to):
        assert out is body
    assert adjusted(body, to, folded) == out, "the same, every time"


@given(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from([b'{"thinking":3}', b"[]", b'{"max_tokens":"x"}', b'{"tool_choice":[]}']),
    )
)
def test_what_is_no_request_is_left_alone(body: bytes) -> None:
    """The provider says what is wrong with it."""
    to = generation_of("claude-haiku-4-5")
    assert to is not None
    assert adjusted(body, to, folded) == body


def test_a_small_answer_leaves_no_room_for_a_budget() -> None:
    """Then there is no thinking, rather than a request that is refused."""
    to = generation_of("claude-sonnet-4-5")
    assert to is not None
    body = b'{"max_tokens":1500,"thinking":{"type":"adaptive"},"messages":[]}'
    assert json.loads(adjusted(body, to, folded)) == {"max_tokens": 1500, "messages": []}
