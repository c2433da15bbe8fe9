"""What `ccr serve` says when the relay is ready: where it listens, what is behind it, how to point Claude Code at it.

Pure. Holds no secret: relay keys are spoken of, never shown.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Started:
    """What there is to say."""

    version: str
    url: str  # base URL for clients on this machine
    listens_on: str  # host:port as bound
    config: str  # a path, or what stands for one
    providers: tuple[str, ...]
    workers: int
    needs_key: bool
    allows_subscription: bool
    demo_reason: str | None  # None: not the demo


def banner(started: Started) -> str:
    """Lines for a terminal, without a line break at the end."""
    return "\n".join([*_facts(started), *_demo(started), "", *_pointing(started), "", *_trying(started)])


def _facts(started: Started) -> list[str]:
    return [
        f"cc-relay {started.version} is ready on {started.listens_on}",
        f"  config     {started.config}",
        f"  providers  {', '.join(started.providers)}",
        f"  workers    {started.workers}",
    ]


def _demo(started: Started) -> list[str]:
    if started.demo_reason is None:
        return []
    return [
        "",
        f"DEMO: {started.demo_reason}.",
        "A scripted provider answers every request; no model is behind it, nothing leaves this machine.",
        "For real answers set ANTHROPIC_API_KEY (or ZAI_API_KEY, …), or run `ccr config init`, and start again.",
    ]


def _pointing(started: Started) -> list[str]:
    lines = ["Point Claude Code at it:", f"  export ANTHROPIC_BASE_URL={started.url}", f"  export {_token(started)}"]
    if started.needs_key and started.allows_subscription:
        lines.append("  (a claude.ai login works as well: leave ANTHROPIC_AUTH_TOKEN unset)")
    return [*lines, "or start it set up for this relay:", "  ccr run claude"]


def _token(started: Started) -> str:
    value = "'<one of your relay keys>'" if started.needs_key else "relay   # any value: no relay key is needed"
    return f"ANTHROPIC_AUTH_TOKEN={value}"


def _trying(started: Started) -> list[str]:
    credential = ' -H "authorization: Bearer $ANTHROPIC_AUTH_TOKEN"' if started.needs_key else ""
    body = '{"model":"claude-sonnet-4-5","max_tokens":64,"messages":[{"role":"user","content":"hello"}]}'
    return [
        "Try it:",
        f"  curl {started.url}/v1/messages{credential} -H 'content-type: application/json' \\",
        f"    -H 'anthropic-version: 2023-06-01' -d '{body}'",
    ]
