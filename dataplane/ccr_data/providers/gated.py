"""What a provider does not take is left out of a request: the fields that belong to betas which it is not sent.

Which fields go depends on the provider's beta policy and on nothing else: not on the betas of this one request, which vary from turn
to turn while the conversation must keep its prefix (docs/providers/anthropic.md, preserved thinking). Everything that stays is
byte-identical, so that prompt caches and thinking signatures still fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec

from ccr_data.core.errors import BadRequest
from ccr_data.core.snapshot import Provider

Fields = dict[str, msgspec.Raw]

# The betas that a field belongs to. Sources: the beta headers of Anthropic's API, what clouds refuse of them.
_EDITS = ("context-management-2025-06-27",)
_COMPACTION = ("compact-2026-01-12",)
_OF_REQUEST = {
    "compaction": ("compact-2026-09-04",),
    "mcp_servers": ("mcp-client-2025-04-04", "mcp-client-2025-11-20", "mcp-client-2026-09-15"),
    "fallbacks": ("server-side-fallback-2026-06-01", "server-side-fallback-2026-07-01"),
    "fallback_credit_token": ("fallback-credit-2026-06-01", "fallback-credit-2026-07-01"),
    "thread": ("message-threads-2026-08-12",),
    "speed": ("fast-mode-2026-02-01",),
    "output_format": ("structured-outputs-2025-11-13",),
}
_OF_THINKING = {"block_binding": ("thinking-binding-controls-2026-08-01",)}
_OF_OUTPUT_CONFIG = {"task_budget": ("task-budgets-2026-03-13",)}
_OF_TURN = {
    "clear_at": ("mid-conversation-system-clear-at-2026-08-21",),
    "output_config": ("per-turn-control-2026-07-01", "mid-conversation-output-config-2026-07-01"),
}
_OF_TOOL = {
    "defer_loading": ("advanced-tool-use-2025-11-20", "tool-search-tool-2025-10-19"),
    "strict": ("structured-outputs-2025-11-13",),
    "eager_input_streaming": ("fine-grained-tool-streaming-2025-05-14",),
}
_DISPLAY_UPDATES = ("thinking-display-updates-2026-08-18",)
_TOOL_CHANGES = ("mid-conversation-tool-changes-2026-07-01",)
_TOOL_CHANGE = re.compile(rb'"type"\s*:\s*"tool_(?:addition|removal)"')
_CACHE_CONTROL = re.compile(rb'"cache_control"\s*:\s*(\{[^{}]*\})')
_NOTHING_LEFT = (
    b'[{"type":"text","text":"(no content)"}]'  # a turn must not be empty; these are Claude Code's own words
)


class Gates(msgspec.Struct, frozen=True):
    """The fields that a provider does not take, by where they are."""

    request: tuple[str, ...]
    thinking: tuple[str, ...]
    output_config: tuple[str, ...]
    turn: tuple[str, ...]
    tool: tuple[str, ...]
    edits: bool
    compaction: bool
    display_updates: bool
    tool_changes: bool


class _Kind(msgspec.Struct):
    type: str = ""


@lru_cache(maxsize=64)
def gates(allowed: frozenset[str] | None, dropped: frozenset[str]) -> Gates:
    """What a beta policy leaves out."""

    def is_shut(betas: tuple[str, ...]) -> bool:
        return any(beta in dropped for beta in betas) or (
            allowed is not None and not any(beta in allowed for beta in betas)
        )

    def shut(table: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(name for name, betas in table.items() if is_shut(betas))

    return Gates(
        shut(_OF_REQUEST),
        shut(_OF_THINKING),
        shut(_OF_OUTPUT_CONFIG),
        shut(_OF_TURN),
        shut(_OF_TOOL),
        is_shut(_EDITS),
        is_shut(_COMPACTION),
        is_shut(_DISPLAY_UPDATES),
        is_shut(_TOOL_CHANGES),
    )


def fields_of(body: bytes) -> Fields:
    """The top level of a request body; values byte-identical. Raises BadRequest if it is no JSON object."""
    try:
        return msgspec.json.decode(body, type=Fields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:  # msgspec is stricter than providers are: it takes no lone surrogates, for one
        loose = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the request body is not valid JSON") from None
    if not isinstance(loose, dict):
        raise BadRequest("the request body is not a JSON object")
    return {name: msgspec.Raw(json.dumps(value, separators=(",", ":")).encode()) for name, value in loose.items()}


def leave_out(fields: Fields, provider: Provider) -> bool:
    """Take out of a request's fields what the provider does not take; whether there was any of it."""
    if provider.allowed_betas is None and not provider.dropped_betas:
        return False
    shut = gates(provider.allowed_betas, provider.dropped_betas)
    before = dict(fields)
    for name in shut.request:
        fields.pop(name, None)
    _change(fields, "thinking", lambda raw: _without_thinking(raw, shut))
    _change(fields, "output_config", lambda raw: _without(raw, shut.output_config))
    if shut.edits or shut.compaction:
        _change(fields, "context_management", lambda raw: _without_edits(raw, shut))
    if shut.tool:
        _change(fields, "tools", lambda raw: _each(raw, shut.tool, lambda tool: _without(tool, shut.tool)))
    if shut.turn or shut.tool_changes:
        _change(fields, "messages", lambda raw: _without_in_turns(raw, shut))
    return len(fields) != len(before) or any(fields[name] is not before[name] for name in fields)


def without_cache_scope(body: bytes) -> bytes:
    """A body (or part of one) whose `cache_control` objects have no `scope`: clouds know none."""
    if b'"scope"' not in body:
        return body
    return _CACHE_CONTROL.sub(_without_scope, body)


def _without_scope(found: re.Match[bytes]) -> bytes:
    try:
        fields = msgspec.json.decode(found[1], type=Fields)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return found[0]
    if fields.pop("scope", None) is None:
        return found[0]
    return found[0][: found.start(1) - found.start()] + msgspec.json.encode(fields)


def _change(fields: Fields, name: str, change: Callable[[bytes], bytes | None]) -> None:
    """Replace a field by what `change` makes of it: None takes it out. What cannot be read stays: the provider says what is wrong."""
    raw = fields.get(name)
    if raw is None:
        return
    was = bytes(raw)
    try:
        now = change(was)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if now is None:
        del fields[name]
    elif now is not was:
        fields[name] = msgspec.Raw(now)


def _without(raw: bytes, names: tuple[str, ...]) -> bytes:
    """An object without these keys; the same bytes if it has none of them."""
    if not any(name.encode() in raw for name in names):
        return raw
    fields = msgspec.json.decode(raw, type=Fields)
    kept = {name: value for name, value in fields.items() if name not in names}
    return raw if len(kept) == len(fields) else msgspec.json.encode(kept)


def _without_thinking(raw: bytes, shut: Gates) -> bytes:
    raw = _without(raw, shut.thinking)
    if shut.display_updates and b"updates" in raw:
        fields = msgspec.json.decode(raw, type=Fields)
        if bytes(fields.get("display", b"")) == b'"updates"':
            return _without(raw, ("display",))
    return raw


def _without_edits(raw: bytes, shut: Gates) -> bytes | None:
    """`context_management` with the edits that the provider knows; None if none is left."""
    fields = msgspec.json.decode(raw, type=Fields)
    edits = msgspec.json.decode(fields.get("edits", msgspec.Raw(b"[]")), type=list[msgspec.Raw])
    kept = [edit for edit in edits if not (shut.compaction if _kind(edit).startswith("compact_") else shut.edits)]
    if not kept:
        return None
    if len(kept) == len(edits):
        return raw
    fields["edits"] = msgspec.Raw(b"[" + b",".join(map(bytes, kept)) + b"]")
    return msgspec.json.encode(fields)


def _kind(raw: msgspec.Raw) -> str:
    return msgspec.json.decode(raw, type=_Kind).type


def _each(raw: bytes, marks: tuple[str, ...], change: Callable[[bytes], bytes]) -> bytes:
    """A list with `change` made to each of its objects; the same bytes if it speaks of none of the marks, or nothing changed."""
    if not any(b'"%b"' % mark.encode() in raw for mark in marks):
        return raw
    elements = [bytes(element) for element in msgspec.json.decode(raw, type=list[msgspec.Raw])]
    changed = [change(element) for element in elements]
    if all(now is was for now, was in zip(changed, elements, strict=True)):
        return raw
    return b"[" + b",".join(changed) + b"]"


def _without_in_turns(raw: bytes, shut: Gates) -> bytes:
    raw = _each(raw, shut.turn, lambda turn: _without(turn, shut.turn))
    if shut.tool_changes and _TOOL_CHANGE.search(raw):
        return _each(raw, ("tool_addition", "tool_removal"), _without_tool_changes)
    return raw


def _without_tool_changes(turn: bytes) -> bytes:
    """A turn without blocks that add or remove tools."""
    if not _TOOL_CHANGE.search(turn):
        return turn
    fields = msgspec.json.decode(turn, type=Fields)
    content = fields.get("content")
    if content is None or not bytes(content).lstrip().startswith(b"["):
        return turn
    blocks = msgspec.json.decode(content, type=list[msgspec.Raw])
    kept = [block for block in blocks if _kind(block) not in ("tool_addition", "tool_removal")]
    if len(kept) == len(blocks):
        return turn
    fields["content"] = msgspec.Raw(b"[" + b",".join(map(bytes, kept)) + b"]" if kept else _NOTHING_LEFT)
    return msgspec.json.encode(fields)
