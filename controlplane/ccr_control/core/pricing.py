"""What models cost: a table that a configuration can overrule.

Pure. USD per million tokens at a model's first-party endpoint, as of 7 October 2026. Sources: LiteLLM's price list (package 1.109.1),
checked against Anthropic's pricing and prompt-caching pages. Regional and cloud endpoints ask a factor on it (`price_factor`: 1.1 for
most regional ones); subscriptions cost nothing more for each request (`price_factor: 0`). claude-haiku-5-5 has two bands: a prompt
above 100,000 tokens costs five times as much, all of it. Cost-based routing goes by the lower one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PRICED_ON = "2026-10-07"
SOURCE = "LiteLLM 1.109.1, checked against Anthropic's pricing pages"


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens; None: as input."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write_5m: float | None = None
    cache_write_1h: float | None = None
    long: Band | None = None  # else for prompts of any size

    def for_prompt(self, tokens: int) -> Price:
        """The price of a request whose prompt has so many tokens, those read from and written to caches included."""
        return self if self.long is None or tokens <= self.long.above_prompt_tokens else self.times(self.long.factor)

    def times(self, factor: float) -> Price:
        """The price somewhere that costs so many times as much."""
        return Price(
            round(self.input * factor, 9),
            round(self.output * factor, 9),
            _times(self.cache_read, factor),
            _times(self.cache_write_5m, factor),
            _times(self.cache_write_1h, factor),
            self.long,
        )


def _times(price: float | None, factor: float) -> float | None:
    return None if price is None else round(price * factor, 9)


@dataclass(frozen=True, slots=True)
class Band:
    """Long prompts cost so many times as much, all of them."""

    above_prompt_tokens: int
    factor: float


FREE = Price(0, 0, 0, 0, 0)

_OPUS = Price(5, 25, 0.50, 6.25, 10)
_SONNET_4 = Price(3, 15, 0.30, 3.75, 6)
_GLM_5 = Price(1.4, 4.4, 0.26)
_GLM_4 = Price(0.6, 2.2, 0.11)
_MINIMAX_2 = Price(0.3, 1.2, 0.03, 0.375)

PRICES = {
    "claude-fable-5-1": Price(10, 50, 0.25, 12.5, 20),
    "claude-mythos-5-1": Price(10, 50, 0.25, 12.5, 20),
    "claude-fable-5": Price(10, 50, 1.00, 12.5, 20),
    "claude-mythos-5": Price(10, 50, 1.00, 12.5, 20),
    "claude-opus-5-5": Price(4, 20, 0.20, 5, 8),
    "claude-opus-5": _OPUS,
    "claude-opus-4-8": _OPUS,
    "claude-opus-4-7": _OPUS,
    "claude-opus-4-6": _OPUS,
    "claude-opus-4-5": _OPUS,
    "claude-sonnet-5-5": Price(2, 10, 0.10, 2.5, 4),
    "claude-sonnet-5": Price(2, 10, 0.20, 2.5, 4),
    "claude-sonnet-4-6": _SONNET_4,
    "claude-sonnet-4-5": _SONNET_4,
    "claude-haiku-5-5": Price(0.10, 0.50, 0.01, 0.125, 0.20, long=Band(100_000, 5)),
    "claude-haiku-4-5": Price(1, 5, 0.10, 1.25, 2),
    "glm-5.3": _GLM_5,
    "glm-5.2": _GLM_5,
    "glm-5.1": _GLM_5,
    "glm-5.3-flash": Price(0.15, 0.5, 0.03),
    "glm-5": Price(1.0, 3.2, 0.2),
    "glm-5-code": Price(1.2, 5.0, 0.3),
    "glm-4.7": _GLM_4,
    "glm-4.6": _GLM_4,
    "glm-4.5-air": Price(0.2, 1.1),
    "glm-4.7-flash": FREE,
    "glm-4.5-flash": FREE,
    "MiniMax-M3": Price(0.3, 1.2, 0.06),
    "MiniMax-M2.5": _MINIMAX_2,
    "MiniMax-M2.1": _MINIMAX_2,
    "MiniMax-M2": _MINIMAX_2,
    "kimi-k3": Price(3, 15, 0.3, 3, 3),
    "kimi-k3.1-pro": Price(2, 10, 0.2, 2, 2),
    "kimi-k2.7-code": Price(0.95, 4.0, 0.19),
    "kimi-k2.6": Price(0.95, 4.0, 0.16),
    "deepseek-flash": Price(0.3, 1.2, 0.006),
    "deepseek-v4-flash": Price(0.3, 1.2, 0.006),
    "deepseek-v4-pro": Price(1.32, 3.96, 0.044),
}
"""By the name at the first-party endpoint, without a date."""


def table() -> Iterator[tuple[str, Price]]:
    """Pattern and price: each name as it is, and for Claude models with a date behind it and as clouds write it."""
    for name, price in PRICES.items():
        yield name, price
        if name.startswith("claude-"):
            yield f"{name}-20*", price  # claude-haiku-4-5-20251001
            yield f"{name}@*", price  # as Vertex AI writes it
            yield f"*anthropic.{name}", price  # as AWS Bedrock writes it, with or without a profile
            yield f"*anthropic.{name}-20*", price
            yield f"*anthropic.{name}-v*", price
