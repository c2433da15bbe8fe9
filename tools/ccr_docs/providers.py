"""docs/providers/README.md: an index and what the presets say of each kind of provider."""

from __future__ import annotations

from pathlib import Path

from ccr_control.core.clouds import CLOUDS
from ccr_control.core.presets import PRESETS

from ccr_docs.markdown import made_from, table
from ccr_docs.markdown import page as joined

INTRO = """\
One page for each kind of provider: set-up, limits, what is missing there and what the relay does about it. The client's side is
[claude-code.md](claude-code.md). The tables show what a configuration that says nothing else gets; `traits`, `auth_style`, `serves` and
`models` of a provider override them ([reference](../reference/config.md))."""

NOTES = """\
- **system turns**: `messages` entries with `role: "system"`. *pass*: sent on untouched; *fold*: made part of the user turn
  before them, always in the same way; *reject*: answered with the error at which Claude Code folds them itself.
- **count_tokens** *no*: the relay answers 404 without asking the provider, and Claude Code counts by itself.
- **documents** *no*: another provider for the model that reads `document` blocks is preferred; without one the request is
  served, with an `x-cc-relay-warning` header and the same warning in the log line.
- **prompt caching**: whether `cost-based` reckons with reads from a cache. **signatures** *yes*: thinking that was signed there
  verifies wherever else it says *yes*. A conversation that moves between a *yes* and a *no* leaves its thinking blocks behind.
- **Clouds** take a region, project or resource instead of a base URL, and Claude's names become their ids: see their pages.
- Facts that no public source confirms are marked *unverified* on the provider's page; the default is then the harmless choice."""


def page(_root: Path) -> str:
    """The whole page."""
    where = [
        (
            f"[{name}]({preset.page or name}.md)",
            _type(name),
            preset.base_url or ("as its place says" if name in CLOUDS or preset.written else "to be said"),
            preset.auth_style + (", optional" if preset.keys_optional else ""),
            ", ".join(f"`{pattern}`" for pattern in preset.serves),
        )
        for name, preset in PRESETS.items()
    ]
    can = [
        (
            name,
            preset.system_turns,
            _yes(preset.count_tokens),
            _yes(preset.documents),
            _yes(preset.prompt_caching),
            _yes(preset.batches_and_files),
            _yes(preset.anthropic_signatures),
        )
        for name, preset in PRESETS.items()
    ]
    betas = [
        (name, ", ".join(f"`{a}` → `{b}`" for a, b in preset.renamed_betas.items()), _codes(preset.dropped_betas))
        for name, preset in PRESETS.items()
        if preset.renamed_betas or preset.dropped_betas
    ]
    models = [(name, ", ".join(f"`{m}`" for m in preset.models)) for name, preset in PRESETS.items() if preset.models]
    columns = ("kind", "system turns", "count_tokens", "documents", "prompt caching", "batches, files", "signatures")
    return joined(
        "# Providers",
        made_from("controlplane/ccr_control/core/presets.py"),
        INTRO,
        "## Where they are",
        table(("kind", "written as", "base URL", "key", "serves without a route"), where),
        "## What they can do",
        table(columns, can),
        NOTES,
        "## `anthropic-beta` values",
        "Forwarded but for these, unless the provider's `betas` says otherwise.",
        table(("kind", "renamed", "left out"), betas),
        "## Models that `GET /v1/models` lists",
        "Unless the provider's `models` says otherwise.",
        table(("kind", "models"), models),
    )


def _type(name: str) -> str:
    if PRESETS[name].written:
        return PRESETS[name].written
    own = name in ("anthropic", "zai", "ollama", "anthropic-compatible", *CLOUDS)
    return f"`type: {name}`" if own else f"`type: anthropic-compatible`, `preset: {name}`"


def _codes(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
