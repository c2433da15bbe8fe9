"""Prompt-cache accounting: how many input tokens were read, written or plain?

Pure: state goes in and comes out, times are seconds of the caller's clock. Rules from
docs/providers/anthropic.md: the prefix runs over tools, system, messages; an exact match only; at most 4
breakpoints; a look-back of 20 blocks for each; 5 m or 1 h from the start of the request, renewed by a hit;
nothing below the model's smallest prefix; an entry can be read once the first response has begun.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ccr_demo.errors import ApiError
from ccr_demo.signatures import ATTRIBUTION

LOOK_BACK_BLOCKS = 20
MAX_BREAKPOINTS = 4
TTL_S: Mapping[str, float] = {"5m": 300.0, "1h": 3600.0}
IMAGE_TOKENS = 1500

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """One cacheable piece of the prompt."""

    digest: str  # of the whole prefix up to and with this block
    tokens: int  # of this block alone
    ttl: str | None  # of the breakpoint at this block, if there is one


@dataclass(frozen=True, slots=True)
class InputUsage:
    """Input tokens by kind; their sum is the whole prompt."""

    input_tokens: int
    read_tokens: int = 0
    written_5m_tokens: int = 0
    written_1h_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """The whole prompt."""
        return self.input_tokens + self.read_tokens + self.written_5m_tokens + self.written_1h_tokens


@dataclass(frozen=True, slots=True)
class PromptCache:
    """Entries of all workspaces: (workspace, digest) -> (lifetime, end), both in seconds."""

    entries: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def look_up(self, workspace: str, prompt: "Prompt", now_s: float) -> tuple[InputUsage, "PromptCache"]:
        """What the prompt costs now, and the cache once its response has begun."""
        marks = [i for i, block in enumerate(prompt.blocks) if block.ttl]
        counts = prompt.running_totals()
        marks = [i for i in marks if counts[i] >= prompt.min_tokens]
        if not marks:
            return InputUsage(sum(block.tokens for block in prompt.blocks)), self
        hit = self._longest_hit(workspace, prompt, marks, now_s)
        read = counts[hit] if hit is not None else 0
        written, entries = {"5m": 0, "1h": 0}, self._alive(now_s)
        if hit is not None:
            key = (workspace, prompt.blocks[hit].digest)
            entries[key] = (entries[key][0], now_s + entries[key][0])
        done = read
        for mark in marks:
            ttl = prompt.blocks[mark].ttl or "5m"
            if counts[mark] > done:
                written[ttl] += counts[mark] - done
                done = counts[mark]
            entries[(workspace, prompt.blocks[mark].digest)] = (TTL_S[ttl], now_s + TTL_S[ttl])
        return InputUsage(counts[-1] - done, read, written["5m"], written["1h"]), PromptCache(entries)

    def merged(self, later: "PromptCache") -> "PromptCache":
        """Both, after two requests ran at the same time."""
        return PromptCache({**self.entries, **later.entries})

    def _longest_hit(self, workspace: str, prompt: "Prompt", marks: list[int], now_s: float) -> int | None:
        for mark in reversed(marks):
            for i in range(mark, max(-1, mark - LOOK_BACK_BLOCKS), -1):
                entry = self.entries.get((workspace, prompt.blocks[i].digest))
                if entry is not None and entry[1] > now_s:
                    return i
        return None

    def _alive(self, now_s: float) -> dict[tuple[str, str], tuple[float, float]]:
        return {key: entry for key, entry in self.entries.items() if entry[1] > now_s}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request as the cache sees it."""

    blocks: tuple[Block, ...]
    min_tokens: int

    def running_totals(self) -> list[int]:
        """Tokens up to and with each block."""
        totals, sum_so_far = [], 0
        for block in self.blocks:
            sum_so_far += block.tokens
            totals.append(sum_so_far)
        return totals


def read_prompt(body: Json, min_tokens: int) -> Prompt:
    """The blocks of a request with their breakpoints. Raises ApiError (400) above four of them."""
    # Everything that invalidates the cache from the first block on.
    thinking = body.get("thinking") or {}
    config = body.get("output_config") or {}
    keys = [body.get("model"), body.get("tool_choice"), thinking.get("type"), thinking.get("budget_tokens")]
    digest = _digest("", [*keys, config.get("effort"), body.get("speed")])
    blocks = []
    for section, value in _pieces(body):
        marker = value.get("cache_control") if isinstance(value, dict) else None
        bare = _bare(value)
        digest = _digest(digest, [section, bare])
        ttl = str(marker.get("ttl", "5m")) if isinstance(marker, dict) else None
        blocks.append(Block(digest, estimate_tokens(bare), ttl if ttl in TTL_S else ttl and "5m"))
    if isinstance(body.get("cache_control"), dict) and blocks and not blocks[-1].ttl:
        last = blocks[-1]
        ttl = str(body["cache_control"].get("ttl", "5m"))
        blocks[-1] = Block(last.digest, last.tokens, ttl if ttl in TTL_S else "5m")
    found = sum(1 for block in blocks if block.ttl)
    if found > MAX_BREAKPOINTS:
        raise ApiError(400, f"A maximum of 4 blocks with cache_control may be provided. Found {found}.")
    return Prompt(tuple(blocks), min_tokens)


def count_input_tokens(body: Json) -> int:
    """The answer of count_tokens: the same estimate that a request would be charged for."""
    return max(1, sum(estimate_tokens(_bare(value)) for _, value in _pieces(body)))


def estimate_tokens(value: Any) -> int:
    """A deterministic estimate: 4 bytes of UTF-8 a token; images and documents count a constant."""
    if isinstance(value, dict) and isinstance(value.get("source"), dict):
        return IMAGE_TOKENS
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        value = value["text"]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return max(1, -(-len(text.encode("utf-8", "surrogatepass")) // 4))


def _pieces(body: Json) -> Iterator[tuple[str, Any]]:
    for tool in body.get("tools") or ():
        yield "tool", tool
    system = body.get("system") or ()
    for block in [{"type": "text", "text": system}] if isinstance(system, str) else system:
        if not str(block.get("text", "")).startswith(ATTRIBUTION):
            yield "system", block
    for message in body.get("messages") or ():
        content = message.get("content", "")
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            yield str(message.get("role")), block


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: each for key, each in value.items() if key != "cache_control"}
    return value


def _digest(before: str, value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(before.encode() + text.encode()).hexdigest()
