"""Leaving thinking blocks out: always the same ones, and everything else stays to the byte."""

from __future__ import annotations

import json
import re

import pytest
from ccr_data.core.thinking import (
    Place,
    Problem,
    has_thinking,
    is_in_tool_loop,
    signature_problem,
    thoughts,
    to_drop,
    without,
    without_budget,
)
from hypothesis import given
from hypothesis import strategies as st

Turn = dict[str, object]

TEXT = st.text(max_size=6)
THINKING = st.builds(
    lambda text, name: {"type": "thinking", "thinking": text, "signature": name}, TEXT, st.sampled_from("abcdefgh")
)
REDACTED = st.builds(lambda name: {"type": "redacted_thinking", "data": name}, st.sampled_from("rstu"))
BARE = st.builds(lambda text: {"type": "thinking", "thinking": text}, TEXT)
SAID = st.builds(lambda text: {"type": "text", "text": text}, TEXT)
QUOTED = st.just({"type": "text", "text": '{"type":"thinking","signature":"a"}'})
CALL = st.builds(lambda value: {"type": "tool_use", "id": "t", "name": "n", "input": value}, TEXT | THINKING | BARE)
ASSISTANT = st.builds(
    lambda content: {"role": "assistant", "content": content},
    TEXT | st.lists(THINKING | REDACTED | BARE | SAID | QUOTED | CALL, min_size=1, max_size=5),
)
USER = st.builds(
    lambda content: {"role": "user", "content": content},
    TEXT | st.lists(SAID | QUOTED | st.just({"type": "tool_result", "tool_use_id": "t"}), min_size=1, max_size=3),
)
CONVERSATION = st.lists(USER | ASSISTANT, min_size=1, max_size=7)
STYLES = [{"separators": (",", ":")}, {"separators": (" ,", " : ")}, {"indent": 1, "ensure_ascii": False}]


def body_of(turns: list[Turn], style: int = 0, **more: object) -> bytes:
    fields = {"model": "m", "system": 'say "messages":[{}]', "messages": turns, "max_tokens": 5, **more}
    return json.dumps(fields, **STYLES[style]).encode()  # type: ignore[arg-type]


@given(CONVERSATION, st.sampled_from(range(3)), st.data())
def test_the_marked_blocks_go_and_nothing_else_changes(turns: list[Turn], style: int, data: st.DataObject) -> None:
    """A provider that counts every byte before a block must find them all."""
    body = body_of(turns, style)
    known = thoughts(body)
    chosen = data.draw(st.sets(st.sampled_from(known))) if known else set()
    marks = {thought.mark for thought in chosen}
    left = without(body, marks)

    assert json.loads(left) == {**json.loads(body), "messages": _model(turns, body, marks)}
    assert without(body, marks) == left
    assert without(left, marks) == left
    assert not marks & {thought.mark for thought in thoughts(left)}
    assert _is_subsequence(left.replace(b'{"type":"text","text":"(no content)"}', b""), body)


@given(CONVERSATION, CONVERSATION, st.data())
def test_a_longer_conversation_keeps_its_prefix(turns: list[Turn], more: list[Turn], data: st.DataObject) -> None:
    """Prompt caches and signatures of later blocks depend on it."""
    known = thoughts(body_of([*turns, *more]))
    marks = {thought.mark for thought in data.draw(st.sets(st.sampled_from(known)))} if known else set()
    end = b'],"max_tokens":5}'
    shorter, longer = without(body_of(turns), marks), without(body_of([*turns, *more]), marks)

    assert shorter.endswith(end)
    assert longer.startswith(shorter.removesuffix(end))


@given(CONVERSATION)
def test_the_last_try_leaves_no_thinking(turns: list[Turn]) -> None:
    body = body_of(turns)
    left = without(body, to_drop(body, Problem(None), is_last_try=True))

    assert thoughts(left) == []


@given(CONVERSATION, st.integers(0, 8), st.integers(0, 5))
def test_a_try_drops_something_and_keeps_what_has_verified(turns: list[Turn], turn: int, block: int) -> None:
    """Blocks before the named one verified; they and the prompt cache over them stay."""
    body = body_of(turns)
    known = thoughts(body)
    marks = to_drop(body, Problem(Place(turn, block)), is_last_try=False)

    assert bool(marks) == bool(known)
    if Place(turn, block) in {thought.place for thought in known}:
        earlier = [thought for thought in known if thought.place < (turn, block)]
        later = {thought.mark for thought in known if thought.place >= (turn, block)}
        assert marks <= later
        assert all(thought.mark not in marks for thought in earlier if thought.mark not in later)


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: f'{{"messages":[{text}]}}'.encode()))
def test_what_is_no_conversation_passes_as_it_is(body: bytes) -> None:
    """The provider says what is wrong with it."""
    assert thoughts(body) == []
    assert without(body, {b"x"}) == body
    assert to_drop(body, Problem(None), is_last_try=True) == frozenset()
    is_in_tool_loop(body)
    signature_problem(body)


def thinking(name: str) -> Turn:
    return {"type": "thinking", "thinking": "", "signature": name}


CALLING = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}
LOOP: list[Turn] = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": [thinking("old"), CALLING]},
    RESULT,
    {"role": "assistant", "content": [thinking("open"), CALLING]},
    RESULT,
    {"role": "system", "content": "note"},
]


def test_an_open_tool_loop_keeps_its_thought_at_the_first_try() -> None:
    """The model is still in the middle of it; only if the provider insists it goes, too."""
    body = body_of(LOOP)
    old, opened = (thought.mark for thought in thoughts(body))

    assert is_in_tool_loop(body)
    assert to_drop(body, Problem(Place(1, 0)), is_last_try=False) == {old}
    assert to_drop(body, Problem(None), is_last_try=False) == {old}
    assert to_drop(body, Problem(Place(3, 0)), is_last_try=False) == {opened}
    assert to_drop(without(body, {old}), Problem(Place(1, 0)), is_last_try=False) == {opened}
    assert not is_in_tool_loop(body_of(LOOP[:4]))
    assert not is_in_tool_loop(
        body_of([*LOOP, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}])
    )


@pytest.mark.parametrize(("mode", "is_disabled"), [("enabled", True), ("adaptive", False), ("disabled", False)])
def test_a_loop_without_its_thought_goes_on_without_thinking(mode: str, is_disabled: bool) -> None:
    """Models with a budget take an open tool loop only if it begins with thinking, or if there is none."""
    asked = {"type": mode, "budget_tokens": 2000}
    body = body_of(LOOP, thinking=asked)
    opened = thoughts(body)[1].mark
    fitted = without_budget(without(body, {opened}))

    assert without_budget(body) == body
    assert json.loads(fitted)["thinking"] == ({"type": "disabled"} if is_disabled else asked)
    assert fitted.replace(b'{"type":"disabled"}', json.dumps(asked, separators=(",", ":")).encode()) == without(
        body, {opened}
    )
    later = body_of([*LOOP, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}], thinking=asked)
    assert without_budget(without(later, {opened})) == without(later, {opened})


SIGNATURE_ERRORS = [
    "messages.1.content.0: Invalid `signature` in `thinking` block",
    "messages.1.content.0: Invalid signature in thinking block",
    "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different conversation. Remove the block,"
    ' or set `thinking.block_binding.prefix_mismatch_behavior` to "drop_block". The `system` prompt differs from the one this block'
    " was created with.",
    "messages.1.content.0: Invalid `signature` in `thinking` block: the block is bound to a different organization",
    "messages.1.content.0: Invalid `data` in `redacted_thinking` block",
    "messages.1.content.0.thinking.signature: Field required",
    "messages.1.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. These blocks"
    " must remain as they were in the original response.",
]


@pytest.mark.parametrize("message", SIGNATURE_ERRORS)
def test_a_signature_error_is_recognised_however_it_is_wrapped(message: str) -> None:
    plain = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": message}})
    wrapped = json.dumps({"error": {"code": 400, "message": plain, "status": "INVALID_ARGUMENT"}}, indent=2)

    assert signature_problem(plain.encode()) == Problem(Place(1, 0))
    assert signature_problem(wrapped.encode()) == Problem(Place(1, 0))
    assert signature_problem(plain.replace("messages.1.content.0", "***.***.content.0").encode()) == Problem(None)


@pytest.mark.parametrize(
    "message",
    [
        "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When `thinking` is enabled, a"
        " final `assistant` message must start with a thinking block",
        "max_tokens: must be greater than `thinking.budget_tokens`",
        'thinking.type: "enabled" thinking is not supported on this model',
        "prompt is too long",
        "",
    ],
)
def test_other_mistakes_are_no_signature_errors(message: str) -> None:
    body = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": message}})

    assert signature_problem(body.encode()) is None


def _model(turns: list[Turn], body: bytes, marks: set[bytes]) -> list[Turn]:
    """A plain definition, on decoded values."""
    gone = {thought.place for thought in thoughts(body) if thought.mark in marks}
    left: list[Turn] = []
    for i, turn in enumerate(turns):
        content = turn["content"]
        if isinstance(content, list):
            kept = [block for j, block in enumerate(content) if (i, j) not in gone]
            content = kept or [{"type": "text", "text": "(no content)"}]
        left.append({**turn, "content": content})
    assert gone == {
        (i, j)
        for i, turn in enumerate(turns)
        if turn["role"] == "assistant" and isinstance(turn["content"], list)
        for j, block in enumerate(turn["content"])
        if block["type"] in ("thinking", "redacted_thinking")
        and any(t.mark in marks and t.place == (i, j) for t in thoughts(body))
    }
    assert has_thinking(body) or not gone
    return left


def _is_subsequence(part: bytes, whole: bytes) -> bool:
    pieces = iter(re.findall(rb".", whole, re.DOTALL))
    return all(byte in pieces for byte in re.findall(rb".", part, re.DOTALL))
