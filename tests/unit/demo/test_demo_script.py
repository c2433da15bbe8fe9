"""Scripts and directives: pure decisions of what to answer."""

from typing import Any

import pytest
from ccr_demo.directives import example_input, last_user_text, read_directives, seconds
from ccr_demo.errors import ScriptInvalid
from ccr_demo.script import Facts, Script, read_steps
from hypothesis import given
from hypothesis import strategies as st


def facts(path: str = "/v1/messages", **fields: Any) -> Facts:
    return Facts("POST", path, {"x-app": "cli"}, str(fields).encode(), fields)


def played(script: Script, requests: list[Facts]) -> list[str | None]:
    """The ids of the steps that the requests get, one after another."""
    ids: list[str | None] = []
    for each in requests:
        script = script.counted(each.path)
        index = script.find(each)
        ids.append(None if index is None else script.steps[index].id)
        script = script if index is None else script.took(index)
    return ids


def script(*steps: dict[str, Any]) -> Script:
    return Script.of(read_steps(list(steps)))


def test_steps_are_taken_in_order_and_used_up() -> None:
    plan = script({"id": "a"}, {"id": "b", "times": 2}, {"id": "c"})

    assert played(plan, [facts()] * 5) == ["a", "b", "b", "c", None]


def test_a_step_waits_for_its_request() -> None:
    plan = script(
        {"id": "haiku", "when": {"model": "*haiku*"}},
        {"id": "third", "when": {"call": 3}},
        {"id": "stream", "when": {"stream": True, "header": {"X-App": "cli"}}},
        {"id": "word", "when": {"body_contains": "needle"}, "times": 0},
        {"id": "models", "when": {"path": "/v1/models*"}},
    )

    requests = [
        facts(model="opus"),
        facts(model="claude-haiku-4-5"),
        facts(model="claude-haiku-4-5"),
        facts("/v1/models/x"),
        facts(stream=True),
        facts(text="a needle"),
        facts(text="a needle"),
    ]
    assert played(plan, requests) == [None, "haiku", "third", "models", "stream", "word", "word"]


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([{"txet": "hi"}], "unknown field `txet`"),
        ([{"cut": "softly"}], "Invalid enum value 'softly'"),
        ([{"when": {"model": 5}}], "Expected `str | null`"),
        ("hi", "Expected `array`"),
    ],
)
def test_a_mistake_in_a_script_names_itself(steps: Any, problem: str) -> None:
    with pytest.raises(ScriptInvalid) as caught:
        read_steps(steps)
    assert problem in str(caught.value)


def directed(text: str, times_seen: int = 0, **fields: Any) -> dict[str, Any]:
    """What the directives in a text change, by name."""
    answer = read_directives({"messages": [{"role": "user", "content": text}], **fields}, times_seen)
    assert answer is not None
    usual = read_steps([{}])[0]
    return {
        name: getattr(answer, name)
        for name in answer.__struct_fields__
        if getattr(answer, name) != getattr(usual, name)
    }


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("please [[text:say this]] now", {"text": "say this"}),
        ("[[error:529]]", {"status": 529}),
        ("[[error:429 retry-after=3]]", {"status": 429, "retry_after_s": 3.0}),
        ("[[html:503]]", {"status": 503, "html": True}),
        ("[[error_event:api_error after=4]]", {"error_event": "api_error", "error_event_after": 4}),
        ("[[cut:2 reset]]", {"cut_after_event": 2, "cut": "reset"}),
        ("[[slow:2x1s]]", {"text": ["word 1 ", "word 2 "], "delay_ms": 1000.0}),
        ("[[gap:2s]] [[pings:3]]", {"gap_s": 2.0, "gap_after_event": 4, "ping_every": 3}),
        ("[[max_tokens]] [[redacted]]", {"stop_reason": "max_tokens", "redacted": True}),
        ("[[nonsense]] [[wait:50ms]]", {"pause_before_head_ms": 50.0}),
    ],
)
def test_directives_make_answers(text: str, changes: dict[str, Any]) -> None:
    assert directed(text) == changes


def test_an_error_can_be_over_after_some_tries() -> None:
    """So that a person can watch a client's retry get through."""
    assert directed("[[error:529 x2]]", times_seen=1) == {"status": 529}
    assert directed("[[error:529 x2]]", times_seen=2) == {}


def test_tools_are_called_with_inputs_of_their_schemas() -> None:
    tools = [
        {
            "name": "Odd",
            "input_schema": {
                "required": ["n", "kind", "list"],
                "properties": {"n": {"type": "integer"}, "kind": {"enum": ["a", "b"]}, "list": {"type": "array"}},
            },
        },
        {"name": "Read", "input_schema": {"required": ["file_path"], "properties": {"file_path": {"type": "string"}}}},
    ]
    calls = directed("[[tools:3]]", tools=tools)["tools"]

    assert [call.name for call in calls] == ["Read", "Odd", "Read"]
    assert calls[1].input == {"n": 1, "kind": "a", "list": []}


def test_a_tool_call_can_be_spelled_out() -> None:
    calls = directed('[[tool:Bash {"command": "ls"}]] [[tool:Bash oops]]')["tools"]

    assert [call.input for call in calls] == [{"command": "ls"}, {"input": "oops"}]


def test_no_directive_no_answer() -> None:
    assert read_directives({"messages": [{"role": "user", "content": "just [[brackets]]"}]}, 0) is None


def test_only_the_users_last_words_count() -> None:
    """A directive of an earlier turn, or inside a tool result, is not obeyed again."""
    turns = [
        {"role": "user", "content": "[[error:500]]"},
        {"role": "assistant", "content": "no"},
        {
            "role": "user",
            "content": [{"type": "tool_result", "content": "[[error:501]]"}, {"type": "text", "text": "x"}],
        },
        {"role": "system", "content": "[[error:502]]"},
    ]
    assert last_user_text({"messages": turns}) == "x"


@pytest.mark.parametrize(("text", "value"), [("50ms", 0.05), ("10s", 10), ("2m", 120), ("3", 3), ("soon", 0)])
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@given(text=st.text() | st.from_regex(r"(\[\[[a-z_]+(:[^\]]{0,9})?\]\])+", fullmatch=True))
def test_no_text_breaks_the_reader(text: str) -> None:
    """People write what they like."""
    read_directives({"messages": [{"role": "user", "content": text}]}, 0)


def test_a_schema_without_requirements_needs_no_input() -> None:
    assert example_input({"type": "object"}) == {}
