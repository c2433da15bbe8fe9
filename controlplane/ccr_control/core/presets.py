"""What is known about each kind of upstream, so that a configuration need not say it.

Pure. A table and the function that fills in a provider's unset fields from it. Sources: docs/providers/<name>.md;
"unverified" marks what no source says and errs towards the harmless side.
"""

from __future__ import annotations

from dataclasses import dataclass

from ccr_control.core import catalogue
from ccr_control.core.provider_schema import AuthStyle, ProviderConfig, SystemTurns


@dataclass(frozen=True, slots=True)
class Preset:
    """One kind of upstream."""

    base_url: str | None  # None: the configuration must say it
    auth_style: AuthStyle  # how a key is attached, if there is one
    serves: tuple[str, ...]  # as in the configuration: `!` excludes
    models: tuple[str, ...] = ()
    keys_optional: bool = False
    is_local: bool = False  # plain http and private addresses are its normal case
    count_tokens: bool = True
    system_turns: SystemTurns = "pass"
    documents: bool = True
    prompt_caching: bool = True
    batches_and_files: bool = False
    anthropic_signatures: bool = False


# A local runtime serves whatever is installed on it, which is nothing called "claude" unless a mapping says so.
# `completed` adds what other providers serve.
WHATEVER_IS_INSTALLED = ("*", "!*claude*")

PRESETS = {
    "anthropic": Preset(
        "https://api.anthropic.com",
        "x-api-key",
        ("claude*",),
        catalogue.ANTHROPIC,
        batches_and_files=True,
        anthropic_signatures=True,
    ),
    # Maps claude names itself. Bearer is what its docs set; count_tokens is unverified: an error of its own passes.
    "zai": Preset("https://api.z.ai/api/anthropic", "bearer", ("claude*", "glm*"), catalogue.ZAI),
    # Drops documents silently, has no caching, answers 404 to count_tokens.
    "ollama": Preset(
        "http://localhost:11434",
        "bearer",
        WHATEVER_IS_INSTALLED,
        keys_optional=True,
        is_local=True,
        count_tokens=False,
        documents=False,
        prompt_caching=False,
    ),
    "anthropic-compatible": Preset(None, "both", ("*",)),
    # count_tokens and system turns unverified for these three: Claude Code counts by itself where it is missing,
    # and a folded turn is understood everywhere.
    "minimax": Preset(
        "https://api.minimax.io/anthropic",
        "bearer",
        ("minimax*", "MiniMax*"),
        catalogue.MINIMAX,
        count_tokens=False,
        system_turns="fold",
        documents=False,
    ),
    "moonshot": Preset(
        "https://api.moonshot.ai/anthropic",
        "bearer",
        ("kimi*",),
        catalogue.MOONSHOT,
        count_tokens=False,
        system_turns="fold",
        documents=False,
    ),
    # Maps claude names itself: opus to v4-pro, the others to flash; other unknown names are a 400.
    "deepseek": Preset(
        "https://api.deepseek.com/anthropic",
        "x-api-key",
        ("claude*", "deepseek*"),
        catalogue.DEEPSEEK,
        count_tokens=False,
        system_turns="fold",
        documents=False,
    ),
    "openrouter": Preset("https://openrouter.ai/api", "bearer", ("*/*",)),
    "vllm": Preset(
        "http://localhost:8000", "bearer", WHATEVER_IS_INSTALLED, keys_optional=True, is_local=True, documents=False
    ),
    "llama-cpp": Preset(
        "http://localhost:8080",
        "x-api-key",
        WHATEVER_IS_INSTALLED,
        keys_optional=True,
        is_local=True,
        system_turns="fold",
        documents=False,
    ),
    "lm-studio": Preset(
        "http://localhost:1234",
        "bearer",
        WHATEVER_IS_INSTALLED,
        keys_optional=True,
        is_local=True,
        count_tokens=False,
        system_turns="fold",
        documents=False,
    ),
}


def preset_of(provider: ProviderConfig) -> Preset:
    """What is known about a provider's kind."""
    return PRESETS[provider.preset or provider.type]
