"""What is known of a session's thinking: which blocks a reader does not get, and that it is bounded."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from ccr_data.core.handover import Handovers
from ccr_data.core.pins import (
    MAX_WAIT_S,
    PIN_LIFETIME_S,
    QUIET_PART,
    SHORT_LIFETIME_S,
    Pin,
    Pins,
    key_of,
    lifetime_s,
    wait_for_pin_s,
)
from ccr_data.core.records import Tokens
from ccr_data.core.thinking import thoughts, without
from hypothesis import given
from hypothesis import strategies as st

READERS = ["anthropic", "anthropic/a/x", "unsigned"]


def mark(number: int) -> bytes:
    return number.to_bytes(8, "big")


@given(st.lists(st.sampled_from(READERS), min_size=1, max_size=12))
def test_each_reader_gets_its_own_blocks_and_no_others(places: Sequence[str]) -> None:
    """However often a session moves: what a place made it finds again, all of it and nothing else."""
    handovers, made, home = Handovers(), dict[bytes, str](), places[0]
    for number, place in enumerate(places):
        if place != home:
            handovers.moves(b"s", list(made), home)
        dropped = handovers.foreign(b"s", place)
        assert dropped == {block for block, maker in made.items() if maker != place}
        made[mark(number)] = home = place


@given(st.lists(st.sampled_from(READERS), min_size=1, max_size=10))
def test_each_readers_view_only_grows_at_its_end(places: Sequence[str]) -> None:
    """Its prompt cache and its checked prefix depend on that: later turns never change earlier ones."""
    handovers, turns, home = Handovers(), list[object](), places[0]
    seen: dict[str, bytes] = {}
    for number, place in enumerate(places):
        turns.append({"role": "user", "content": f"q{number}"})
        body = json.dumps({"model": "m", "messages": turns}).encode()
        if place != home:
            handovers.moves(b"s", [thought.mark for thought in thoughts(body)], home)
        sent = without(body, handovers.foreign(b"s", place)).removesuffix(b"]}")
        assert sent.startswith(seen.get(place, b""))
        seen[place] = sent
        home = place
        block = {"type": "thinking", "thinking": "", "signature": f"{place}-{number}"}
        turns.append({"role": "assistant", "content": [block, {"type": "text", "text": f"a{number}"}]})


def test_a_refused_block_goes_nowhere() -> None:
    handovers = Handovers()
    handovers.moves(b"s", [mark(1), mark(2)], "anthropic")
    handovers.refused(b"s", [mark(2), mark(3)])

    assert handovers.foreign(b"s", "anthropic") == {mark(2), mark(3)}
    assert handovers.foreign(b"other", "anthropic") == frozenset()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), max_size=40))
def test_memory_is_bounded(steps: list[tuple[int, int]]) -> None:
    handovers = Handovers(max_sessions=4, max_marks=30)
    for session, count in steps:
        handovers.moves(b"s%d" % session, [mark(session << 8 | number) for number in range(count)], "x")
        known = handovers.all()
        assert len(known) <= 4
        assert len(known) <= 1 or sum(map(len, known.values())) <= 30
        if count:
            assert len(handovers.foreign(b"s%d" % session, "y")) >= count


@pytest.mark.parametrize(
    ("tokens", "before_s", "after_s"),
    [
        (Tokens(cache_write_5m=10), None, SHORT_LIFETIME_S),
        (Tokens(cache_write_1h=10), None, PIN_LIFETIME_S),
        (Tokens(cache_write_5m=10, thinking=5), None, PIN_LIFETIME_S),
        (Tokens(cache_write_5m=10, thinking=5), SHORT_LIFETIME_S, PIN_LIFETIME_S),
        (Tokens(cache_read=10), SHORT_LIFETIME_S, SHORT_LIFETIME_S),
        (Tokens(cache_write_5m=10), PIN_LIFETIME_S, PIN_LIFETIME_S),
        (Tokens(input=10), None, PIN_LIFETIME_S),
    ],
)
def test_a_pin_lives_as_long_as_its_cache(tokens: Tokens, before_s: float | None, after_s: float) -> None:
    before = None if before_s is None else Pin("p", "k", 0.0, lifetime_s=before_s)
    assert lifetime_s(tokens, before) == after_s


def test_a_pin_ends_with_its_cache_but_its_home_is_remembered() -> None:
    """Who signed the thinking still matters when the cache is gone."""
    pins = Pins()
    pins.put(b"s", "p", "k", 0.0, "anthropic", SHORT_LIFETIME_S)
    pins.put(b"s", "p", "k", 200.0, "anthropic", SHORT_LIFETIME_S)

    end_s = 200.0 + SHORT_LIFETIME_S * (1 + QUIET_PART)  # another worker may have renewed it without a word
    assert pins.of(b"s", end_s - 1) is not None
    assert pins.of(b"s", end_s) is None
    assert pins.home(b"s") is not None


def test_others_hear_of_moves_and_now_and_then_of_use() -> None:
    """A session's every turn need not be written."""
    pins = Pins()
    told = 0
    for second in range(600):
        pins.put(b"s", "p" if second < 300 else "q", "k", float(second))
        told += len(pins.changed)
        pins.changed = {}

    assert told == 2


LOOP = (
    b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"tool_use","id":"t"}]},'
    b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"t"}]}]}'
)


@given(st.floats(-5, 60))
def test_only_a_short_rest_inside_a_tool_loop_is_waited_for(rest_s: float) -> None:
    waited_s = wait_for_pin_s(rest_s, LOOP)

    assert waited_s == (rest_s if 0 < rest_s <= MAX_WAIT_S else 0.0)
    assert wait_for_pin_s(rest_s, b'{"messages":[{"role":"user","content":"a"}]}') == 0.0


def test_sessions_agents_and_models_have_keys_of_their_own() -> None:
    keys = {
        key_of(salt, session, agent, model)
        for salt in (b"", b"1")
        for session in ("s", "t")
        for agent in ("", "a")
        for model in ("m", "n")
    }
    assert len(keys) == 16
