"""Prompt-cache accounting of the demo provider."""

from typing import Any

import pytest
from ccr_demo.errors import ApiError
from ccr_demo.prompt_cache import PromptCache, count_input_tokens, read_prompt
from hypothesis import given
from hypothesis import strategies as st

MARK = {"type": "ephemeral"}


def block(text: str, ttl: str | None = None) -> dict[str, Any]:
    marker = {} if ttl is None else {"cache_control": {**MARK, "ttl": ttl}}
    return {"type": "text", "text": text.ljust(40), **marker}  # 10 tokens


def request(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": list(blocks)}], **more}


def look_up(
    cache: PromptCache, body: dict[str, Any], now_s: float = 0.0, min_tokens: int = 0, workspace: str = "w"
) -> tuple[tuple[int, int, int, int], PromptCache]:
    """(plain, read, written for 5 m, written for 1 h), and the cache afterwards."""
    usage, after = cache.look_up(workspace, read_prompt(body, min_tokens), now_s)
    assert usage.total_tokens == count_input_tokens(body)
    return (usage.input_tokens, usage.read_tokens, usage.written_5m_tokens, usage.written_1h_tokens), after


def test_nothing_is_cached_without_a_marker() -> None:
    usage, cache = look_up(PromptCache(), request(block("a"), block("b")))

    assert usage == (20, 0, 0, 0)
    assert cache.entries == {}


def test_a_growing_conversation_reads_what_it_wrote() -> None:
    """Claude Code moves its marker to the newest turn."""
    first, cache = look_up(PromptCache(), request(block("a"), block("b", "5m"), block("c")))
    second, cache = look_up(cache, request(block("a"), block("b"), block("c"), block("d", "5m")))
    third, _ = look_up(cache, request(block("a"), block("b"), block("c"), block("d", "5m"), block("e")))

    assert first == (10, 0, 20, 0)
    assert second == (0, 20, 20, 0)
    assert third == (10, 40, 0, 0)


def test_both_lifetimes_are_told_apart() -> None:
    usage, _ = look_up(PromptCache(), request(block("a", "1h"), block("b", "5m")))

    assert usage == (0, 0, 10, 10)


def test_entries_end_unless_they_are_used() -> None:
    body = request(block("a", "5m"))
    _, cache = look_up(PromptCache(), body, now_s=0)
    hit, renewed = look_up(cache, body, now_s=299)

    assert hit == (0, 10, 0, 0)
    assert look_up(renewed, body, now_s=598)[0] == (0, 10, 0, 0)
    assert look_up(cache, body, now_s=301)[0] == (0, 0, 10, 0)


def test_short_prefixes_are_not_cached() -> None:
    usage, _ = look_up(PromptCache(), request(block("a", "5m"), block("b"), block("c", "5m")), min_tokens=25)

    assert usage == (0, 0, 30, 0)
    assert look_up(PromptCache(), request(block("a", "5m")), min_tokens=25)[0] == (10, 0, 0, 0)


def test_the_look_back_has_an_end() -> None:
    """More than 20 new blocks before the marker and the old entry is out of sight."""
    _, cache = look_up(PromptCache(), request(block("a", "5m")))
    new = [block(f"n{i}") for i in range(19)]

    assert look_up(cache, request(block("a"), *new[:18], block("z", "5m")))[0][1] == 10
    assert look_up(cache, request(block("a"), *new, block("z", "5m")))[0][1] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "other"},
        {"tools": [{"name": "x"}]},
        {"system": "s"},
        {"tool_choice": {"type": "any"}},
        {"thinking": {"type": "adaptive"}},
        {"output_config": {"effort": "low"}},
        {"speed": "fast"},
    ],
)
def test_a_change_before_the_marker_misses(changes: dict[str, Any]) -> None:
    _, cache = look_up(PromptCache(), request(block("a", "5m")))

    assert look_up(cache, {**request(block("a", "5m")), **changes})[0][1] == 0


def test_workspaces_share_nothing() -> None:
    _, cache = look_up(PromptCache(), request(block("a", "5m")))

    assert look_up(cache, request(block("a", "5m")), workspace="v")[0][1] == 0


def test_automatic_caching_marks_the_last_block() -> None:
    usage, _ = look_up(PromptCache(), request(block("a"), block("b"), cache_control=MARK))

    assert usage == (0, 0, 20, 0)


def test_the_attribution_block_does_not_count() -> None:
    """api.anthropic.com strips it."""
    attribution = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.329.abc;"}

    assert count_input_tokens(request(block("a"), system=[attribution])) == 10


def test_five_breakpoints_are_too_many() -> None:
    with pytest.raises(ApiError, match="400"):
        read_prompt(request(*[block(str(i), "5m") for i in range(5)]), 0)


@given(
    texts=st.lists(st.text(max_size=50), min_size=1, max_size=30),
    marks=st.sets(st.integers(0, 29), max_size=4),
)
def test_what_was_written_is_read_at_once(texts: list[str], marks: set[int]) -> None:
    """Whatever the prompt: the second time nothing is written, and the sums agree."""
    body = request(
        *[{"type": "text", "text": t} | ({"cache_control": MARK} if i in marks else {}) for i, t in enumerate(texts)]
    )
    first, cache = look_up(PromptCache(), body)
    second, _ = look_up(cache, body)

    assert sum(first) == sum(second)
    assert second[1] == first[2]
    assert second[2:] == (0, 0)
