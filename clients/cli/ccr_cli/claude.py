"""The environment in which Claude Code talks to the relay and to nothing else.

Pure. Source of the variables: providers' documentation of Claude Code, "Environment variables".
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
"""All that Claude Code would use instead of, or besides, the relay's key. The first one also makes it ask."""

DETOURS = (
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
)
"""Each makes Claude Code go to a cloud directly, past the base URL."""

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def environment(env: Mapping[str, str], url: str, token: str | None) -> dict[str, str]:
    """The environment for Claude Code behind the relay at `url`. A token of None leaves its credentials alone."""
    dropped = {*DETOURS, *(CREDENTIALS if token is not None else ())}
    result = {name: value for name, value in env.items() if name not in dropped}
    result["ANTHROPIC_BASE_URL"] = url
    result["CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY"] = "1"
    if token is not None:
        result["ANTHROPIC_AUTH_TOKEN"] = token
    if any(env.get(name) for name in _PROXIES):  # else it would look for the relay behind the proxy
        for name in ("NO_PROXY", "no_proxy"):
            result[name] = ",".join(filter(None, [env.get(name), urlsplit(url).hostname]))
    return result
