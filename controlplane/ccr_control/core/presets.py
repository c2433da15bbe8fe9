"""What is known about each kind of upstream, so that a configuration need not say it.

Pure. A table and the function that fills in a provider's unset fields from it. Sources: docs/providers/<name>.md;
"unverified" marks what no source says and errs towards the harmless side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ccr_control.core import catalogue, cloud_models
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
    page: str = ""  # of docs/providers; empty: as the preset
    written: str = ""  # in a configuration; empty: as the preset
    renamed_betas: Mapping[str, str] = field(default_factory=dict)
    dropped_betas: tuple[str, ...] = ()  # also where all others are forwarded


_TOOL_SEARCH = {"advanced-tool-use-2025-11-20": "tool-search-tool-2025-10-19"}
# Claude Code leaves these out where it speaks to a cloud itself, or LiteLLM's table drops them there; the subscription's token and
# Anthropic's own services have no place in any cloud.
_NOT_IN_CLOUDS = (
    "oauth-2025-04-20",
    "per-turn-control-2026-07-01",
    "mid-conversation-tool-changes-2026-07-01",
    "advisor-tool-2026-03-01",
    "fast-mode-2026-02-01",
    "fallback-credit-2026-06-01",
    "fallback-credit-2026-07-01",
    "server-side-fallback-2026-06-01",
    "server-side-fallback-2026-07-01",
)
_ANTHROPIC_SERVICES = (
    "code-execution-2025-08-25",
    "files-api-2025-04-14",
    "mcp-client-2025-04-04",
    "mcp-client-2025-11-20",
    "mcp-client-2026-09-15",
    "skills-2025-10-02",
    "web-fetch-2025-09-10",
)

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
    # InvokeModel. Counting is refused for models that are offered by profiles only; context_management is a 400 but for compaction.
    "bedrock": Preset(
        None,
        "bearer",
        ("*.anthropic.claude*", "arn:aws*:bedrock:*"),
        cloud_models.CLAUDE,
        anthropic_signatures=True,
        renamed_betas=_TOOL_SEARCH,
        dropped_betas=(
            *_NOT_IN_CLOUDS,
            *_ANTHROPIC_SERVICES,
            "claude-code-20250219",
            "compact-2026-09-04",
            "context-management-2025-06-27",
            "structured-outputs-2025-11-13",
            "web-search-2025-03-05",
        ),
    ),
    "bedrock-native": Preset(
        None,
        "bearer",
        ("*.anthropic.claude*", "arn:aws*:bedrock:*"),
        cloud_models.CLAUDE,
        anthropic_signatures=True,
        page="bedrock",
        written="`type: bedrock`, `endpoint: native`",
        renamed_betas=_TOOL_SEARCH,
        dropped_betas=(*_NOT_IN_CLOUDS, *_ANTHROPIC_SERVICES, "compact-2026-09-04"),
    ),
    "bedrock-mantle": Preset(
        None,
        "bearer",
        ("anthropic.claude*",),
        cloud_models.CLAUDE,
        anthropic_signatures=True,
        page="bedrock",
        written="`type: bedrock`, `endpoint: mantle`",
        renamed_betas=_TOOL_SEARCH,
        dropped_betas=(*_NOT_IN_CLOUDS, *_ANTHROPIC_SERVICES, "compact-2026-09-04"),
    ),
    # The model is the name of a deployment, which by default is the model's.
    "azure": Preset(
        None,
        "azure",
        ("claude*",),
        cloud_models.CLAUDE,
        anthropic_signatures=True,
        page="azure-foundry",
        dropped_betas=(*_NOT_IN_CLOUDS, "compact-2026-01-12", "fine-grained-tool-streaming-2025-05-14"),
    ),
    # Whether context_management works is disputed: Claude Code leaves it out there, and so does the relay.
    "vertex": Preset(
        None,
        "bearer",
        ("claude-*@*",),
        cloud_models.CLAUDE,
        anthropic_signatures=True,
        renamed_betas=_TOOL_SEARCH,
        dropped_betas=(
            *_NOT_IN_CLOUDS,
            *_ANTHROPIC_SERVICES,
            "context-management-2025-06-27",
            "fine-grained-tool-streaming-2025-05-14",
            "structured-outputs-2025-11-13",
        ),
    ),
    # The Claude API itself, reached through a cloud's account.
    "claude-aws": Preset(
        None,
        "x-api-key",
        ("claude*",),
        catalogue.ANTHROPIC,
        batches_and_files=True,
        anthropic_signatures=True,
        page="claude-platform-aws",
    ),
    "claude-gcp": Preset(
        "https://claude.googleapis.com",
        "bearer",
        ("claude*",),
        catalogue.ANTHROPIC,
        batches_and_files=True,
        anthropic_signatures=True,
        page="claude-google-cloud",
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
    if provider.type == "bedrock" and provider.endpoint in ("native", "mantle"):
        return PRESETS[f"bedrock-{provider.endpoint}"]
    return PRESETS[provider.preset or provider.type]
