"""Folding system turns into user turns: always the same way, and everything else stays to the byte."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ccr_data.core.errors import BadRequest
from ccr_data.core.snapshot import AuthStyle, Origin, Provider, ProviderType, SystemTurns, Traits
from ccr_data.providers.anthropic_shaped import without_system_turns
from hypothesis import given
from hypothesis import strategies as st

FOLDING = Provider(
    "p",
    ProviderType.COMPATIBLE,
    Origin("https", "h", 443),
    "",
    AuthStyle.NONE,
    (),
    traits=Traits(system_turns=SystemTurns.FOLD),
)
TEXT = st.text(max_size=8)
BLOCKS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}), min_size=1, max_size=2)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXT | BLOCKS})


@given(st.lists(TURN, max_size=6), st.booleans())
def test_no_system_turn_is_left_and_nothing_is_lost(turns: list[dict[str, object]], ascii_only: bool) -> None:
    """The provider reads every text in its place; a prefix of the conversation folds to a prefix of the result."""
    body = json.dumps({"model": "m", "messages": turns, "max_tokens": 5}, ensure_ascii=ascii_only).encode()
    folded = json.loads(without_system_turns(body, FOLDING))

    assert {**folded, "messages": turns} == json.loads(body)
    assert all(turn["role"] != "system" for turn in folded["messages"])
    assert _texts(folded["messages"]) == [
        f"<system-reminder>\n{text}\n</system-reminder>" if turn["role"] == "system" else text
        for turn in turns
        for text in _texts([turn])
    ]
    assert without_system_turns(body, FOLDING) == without_system_turns(body, FOLDING)


@given(
    st.binary(max_size=80)
    | st.text(max_size=60).map(lambda text: f'{{"messages":[{{"role":"system","content":{text}}}]}}'.encode())
)
def test_what_is_no_conversation_passes_as_it_is(body: bytes) -> None:
    """The provider says what is wrong with it."""
    without_system_turns(body, FOLDING)


def test_other_turns_keep_their_bytes() -> None:
    """Numbers, escapes and spaces of turns that are not system turns survive."""
    turn = b'{"role": "assistant", "content": [{"type":"tool_use","input":{"n":1.10,"t":"\\u00e9"}}]}'
    body = b'{"model":"m","messages":[{"role":"user","content":"a"},{"role":"system","content":"b"},' + turn + b"]}"

    assert turn in without_system_turns(body, FOLDING)


def test_rejecting_uses_the_wording_that_claude_code_recovers_from() -> None:
    rejecting = replace(FOLDING, traits=Traits(system_turns=SystemTurns.REJECT))
    with pytest.raises(BadRequest, match="role 'system' is not supported on this model"):
        without_system_turns(b'{"messages":[{"role":"system","content":"x"}]}', rejecting)


def _texts(turns: list[dict[str, object]]) -> list[str]:
    texts: list[str] = []
    for turn in turns:
        content = turn["content"]
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts += [block["text"] for block in content]
    return texts
