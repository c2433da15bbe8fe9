"""The configuration that is used when there is none: made from the provider keys in the environment.

Pure. Secrets are named (`${ANTHROPIC_API_KEY}`), never written. With several keys the first provider of the list below
that serves a model gets it, the others stand in when it fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ccr_control.core.addresses import Address

FILE_NAME = "builtin.yaml"
"""In the state directory. It is written again at every start without a configuration."""

_HEADER = """\
# Written by `ccr serve`, because it found no configuration. It is written again at every such start:
# `ccr config init` makes one of your own.
version: 1
server:
  listen: "%s"
  auth: {mode: none, allow_subscription: true}
control: {listen: "%s"}
routing: {strategy: failover}
providers:
"""


@dataclass(frozen=True, slots=True)
class Listens:
    """Where the two planes listen."""

    relay: Address
    control: Address


USUAL = Listens(relay=Address("127.0.0.1", 8787), control=Address("127.0.0.1", 9090))


@dataclass(frozen=True, slots=True)
class _Known:
    """A provider that a variable of the environment brings in."""

    variable: str
    lines: tuple[str, ...]  # of its entry, without the keys


_KEYED = (
    _Known("ANTHROPIC_API_KEY", ("name: anthropic", "type: anthropic")),
    _Known("ZAI_API_KEY", ("name: zai", "type: zai")),
    _Known("MINIMAX_API_KEY", ("name: minimax", "type: anthropic-compatible", "preset: minimax")),
    _Known("MOONSHOT_API_KEY", ("name: moonshot", "type: anthropic-compatible", "preset: moonshot")),
    _Known("DEEPSEEK_API_KEY", ("name: deepseek", "type: anthropic-compatible", "preset: deepseek")),
    _Known("OPENROUTER_API_KEY", ("name: openrouter", "type: anthropic-compatible", "preset: openrouter")),
)

VARIABLES = (*(known.variable for known in _KEYED), "OLLAMA_HOST")
"""The variables that are looked for, in the order of preference of their providers."""


def from_environment(env: Mapping[str, str], listens: Listens = USUAL) -> str | None:
    """A configuration for the providers whose variables are set and not empty; None if there are none."""
    entries = [
        (*known.lines, f"priority: {priority}", f'keys: [{{label: env, key: "${{{known.variable}}}"}}]')
        for priority, known in enumerate(_KEYED)
        if env.get(known.variable)
    ]
    if host := env.get("OLLAMA_HOST"):
        entries.append(("name: ollama", "type: ollama", f"priority: {len(_KEYED)}", f"base_url: {ollama_url(host)}"))
    return _config(entries, listens) if entries else None


def for_demo(port: int, listens: Listens = USUAL) -> str:
    """A configuration whose only provider is the demo on this port of loopback."""
    return _config(
        [
            (
                "name: demo",
                "type: anthropic-compatible",
                f"base_url: http://127.0.0.1:{port}",
                "allow_private: true",
                "keys: [{label: demo, key: demo-key}]",
                "models: [claude-opus-5-5, claude-sonnet-5-5, claude-haiku-5-5]",  # for Claude Code's model discovery
                'serves: ["*"]',
            )
        ],
        listens,
    )


def ollama_url(host: str) -> str:
    """The base URL that Ollama's own `OLLAMA_HOST` means: scheme and port may be missing, 0.0.0.0 is this machine.

    Source: github.com/ollama/ollama, envconfig/config.go.
    """
    scheme, divider, rest = host.strip().rpartition("://")
    authority, slash, path = rest.partition("/")
    name, colon, port = authority.rpartition(":")
    if not colon or "]" in port:  # no port, or the colon belongs to a bracketed IPv6 address
        name, port = authority, {"http": "80", "https": "443"}.get(scheme, "11434") if divider else "11434"
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(name, name)  # noqa: S104 - compared, not bound
    return f"{scheme or 'http'}://{name}:{port}{slash}{path}".rstrip("/")


def _config(entries: list[tuple[str, ...]], listens: Listens) -> str:
    lines = [f"{'    ' if number else '  - '}{line}" for entry in entries for number, line in enumerate(entry)]
    return _HEADER % (listens.relay, listens.control) + "\n".join(lines) + "\n"
