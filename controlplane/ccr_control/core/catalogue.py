"""The models each provider is known to have, and names for people.

Pure. What `GET /v1/models` says when the configuration does not say better. Sources: docs/providers/<name>.md,
as of November 2026.
"""

from __future__ import annotations

import re

ANTHROPIC = (
    "claude-fable-5-2",
    "claude-mythos-5-2",
    "claude-haiku-5-5",
    "claude-sonnet-5-5",
    "claude-fable-5-1",
    "claude-opus-5-5",
    "claude-mythos-5-1",
    "claude-sonnet-5",
    "claude-fable-5",
    "claude-mythos-5",
    "claude-opus-5",
    "claude-opus-4-8",
    "claude-opus-4-7",
    "claude-opus-4-6",
    "claude-sonnet-4-6",
    "claude-haiku-4-5",
    "claude-haiku-4-5-20251001",
    "claude-opus-4-5",
    "claude-opus-4-5-20251101",
    "claude-sonnet-4-5",
    "claude-sonnet-4-5-20250929",
)
ZAI = (
    "glm-5.3",
    "glm-5.3-flash",
    "glm-5.2",
    "glm-5.1",
    "glm-5",
    "glm-5-turbo",
    "glm-4.7",
    "glm-4.6",
    "glm-4.5-air",
)
DEEPSEEK = ("deepseek-v4-pro", "deepseek-flash")
MOONSHOT = ("kimi-k3.1-pro", "kimi-k3", "kimi-k2.7-code", "kimi-k2.6")
MINIMAX = ("MiniMax-M3", "MiniMax-M2.7", "MiniMax-M2.5")

_SPELLED = {"glm": "GLM", "gpt": "GPT", "deepseek": "DeepSeek", "minimax": "MiniMax", "oss": "OSS", "ai": "AI"}
_DATE = re.compile(r"(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")


def display_name(model: str) -> str:
    """A name for people: `claude-opus-5-5` → "Claude Opus 5.5", `glm-4.5-air` → "GLM 4.5 Air"."""
    vendor, slash, rest = model.rpartition("/")
    name, colon, tag = rest.partition(":")
    words: list[str] = []
    for word in re.split(r"[-_]+", name):
        if _DATE.fullmatch(word) and words:
            words.append("({}-{}-{})".format(*_DATE.fullmatch(word).groups()))  # type: ignore[union-attr]
        elif word.isdigit() and len(word) <= 2 and words and re.fullmatch(r"\d{1,2}", words[-1]):
            words[-1] += f".{word}"
        else:
            words.append(_SPELLED.get(word.lower(), word[:1].upper() + word[1:]))
    spelled = " ".join(word for word in words if word) or rest
    return (f"{vendor}: " if slash else "") + spelled + (f" ({tag})" if colon else "")


def created_at(model: str) -> str:
    """When a model with a dated id was published, RFC 3339; empty if its id does not say."""
    found = _DATE.fullmatch(model.rpartition("-")[2])
    return f"{found[1]}-{found[2]}-{found[3]}T00:00:00Z" if found else ""
