"""Decisions in words: where a request went or would go, and why.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ccr_rpc.v1 import usage_pb2

PIN = ("its session had no pin", "its session's pin was kept", "its session's pin was left")
SCORES = {
    "cost-based": "USD per million tokens",
    "latency-based": "s to the first token",
    "least-loaded": "open for its weight",
}


def place(provider: str, key_label: str) -> str:
    """Where a request goes."""
    return f"{provider}/{key_label}" if key_label else provider


def score_text(strategy: str, one: usage_pb2.Considered) -> str:
    """What the strategy ordered by, as a number; `-` where there is none."""
    if not one.HasField("score"):
        return "-"
    if strategy == "latency-based" and not one.score:
        return "not tried yet"
    return f"{one.score:.3g}"


def score_words(strategy: str, one: usage_pb2.Considered) -> str:
    """The same for the end of a line; empty where there is none."""
    if not one.HasField("score") or strategy not in SCORES:
        return ""
    text = score_text(strategy, one)
    return f" ({text})" if text == "not tried yet" else f" ({text} {SCORES[strategy]})"
