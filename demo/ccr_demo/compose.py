"""From an answer to a message: content blocks, usage, and the events that carry them.

Pure. Order and shape of the events: docs/providers/anthropic.md. Like the real API, deltas carry blanks behind
the JSON that have no meaning, and a ping follows the first block's start.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccr_demo.directives import example_input
from ccr_demo.prompt_cache import InputUsage, estimate_tokens
from ccr_demo.script import Answer
from ccr_demo.signatures import redacted_data, sign

Json = Mapping[str, Any]

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
INPUT_FRAGMENT_CHARS = 12


@dataclass(frozen=True, slots=True)
class Piece:
    """One content block: as it stands in a message, as it starts in a stream, and its deltas."""

    whole: Json
    start: Json
    deltas: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A complete answer of the model."""

    id: str
    model: str
    pieces: tuple[Piece, ...]
    stop_reason: str
    stop_sequence: str | None
    input_usage: InputUsage
    usage_changes: Json
    edits_context: bool  # the request had `context_management`, so the answer reports edits

    @property
    def output_tokens(self) -> int:
        """A deterministic estimate of the tokens of all blocks."""
        return sum(estimate_tokens(dict(piece.whole)) for piece in self.pieces)

    @property
    def thinking_tokens(self) -> int:
        """The part of them that is thinking."""
        kinds = ("thinking", "redacted_thinking")
        return sum(estimate_tokens(dict(piece.whole)) for piece in self.pieces if piece.whole.get("type") in kinds)

    def usage(self, output_tokens: int) -> dict[str, Any]:
        """The `usage` object of a message."""
        use = self.input_usage
        return {
            "input_tokens": use.input_tokens,
            "cache_creation_input_tokens": use.written_5m_tokens + use.written_1h_tokens,
            "cache_read_input_tokens": use.read_tokens,
            "cache_creation": {
                "ephemeral_5m_input_tokens": use.written_5m_tokens,
                "ephemeral_1h_input_tokens": use.written_1h_tokens,
            },
            "output_tokens": output_tokens,
            "output_tokens_details": {"thinking_tokens": min(output_tokens, self.thinking_tokens)},
            "service_tier": "standard",
            "inference_geo": "not_available",
            **self.usage_changes,
        }

    def as_json(self) -> dict[str, Any]:
        """The body of an answer without streaming."""
        return {
            **self._head(),
            "content": [dict(piece.whole) for piece in self.pieces],
            "stop_reason": self.stop_reason,
            "stop_sequence": self.stop_sequence,
            "stop_details": self._stop_details(),
            "usage": self.usage(self.output_tokens),
            **self._context_management(),
        }

    def events(self) -> list[bytes]:
        """The same as a stream."""
        start = {
            **self._head(),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": self._first_usage(),
        }
        events = [sse("message_start", {"message": start})]
        for index, piece in enumerate(self.pieces):
            events.append(sse("content_block_start", {"index": index, "content_block": piece.start}))
            if index == 0:
                events.append(PING)
            events += [sse("content_block_delta", {"index": index, "delta": delta}) for delta in piece.deltas]
            events.append(sse("content_block_stop", {"index": index}))
        stop = {
            "stop_reason": self.stop_reason,
            "stop_sequence": self.stop_sequence,
            "stop_details": self._stop_details(),
        }
        usage = self.usage(self.output_tokens)
        for only_at_start in ("cache_creation", "service_tier", "inference_geo"):
            usage.pop(only_at_start, None)
        events.append(sse("message_delta", {"delta": stop, "usage": usage, **self._context_management()}))
        return [*events, sse("message_stop", {})]

    def _first_usage(self) -> dict[str, Any]:
        """What `message_start` knows: the input, and next to nothing of the output."""
        usage = self.usage(1)
        usage.pop("output_tokens_details", None)
        return usage

    def _head(self) -> dict[str, Any]:
        return {"model": self.model, "id": self.id, "type": "message", "role": "assistant"}

    def _stop_details(self) -> dict[str, Any] | None:
        if self.stop_reason != "refusal":
            return None
        return {"type": "refusal", "category": None, "explanation": None}

    def _context_management(self) -> dict[str, Any]:
        return {"context_management": {"applied_edits": []}} if self.edits_context else {}


@dataclass(frozen=True, slots=True)
class Setting:
    """What an answer is made in, besides the request."""

    new_id: Callable[[str], str]
    account: str
    omits_thinking: bool
    prefix: Callable[[Sequence[Json]], bytes]  # of the blocks before a thinking block, for its signature


def compose(answer: Answer, request: Json, usage: InputUsage, setting: Setting) -> Message:
    """The message that the answer describes, for this request (the fields of its body)."""
    message_id = setting.new_id("message")
    pieces: list[Piece] = []
    if answer.thinking is not None:
        prefix = setting.prefix([])
        pieces.append(_thinking_piece(answer.thinking, message_id, prefix, setting))
    if answer.redacted:
        prefix = setting.prefix([piece.whole for piece in pieces])
        block = {"type": "redacted_thinking", "data": redacted_data(message_id, setting.account, prefix)}
        pieces.append(Piece(block, block))
    if answer.text is not None and answer.text not in ("", []):
        pieces.append(_text_piece(answer.text))
    for call in answer.tools:
        pieces.append(_tool_piece(call.id or setting.new_id("tool_use"), call.name, call.input))
    pieces += [Piece(block, block) for block in answer.blocks]
    return Message(
        id=message_id,
        model=answer.model or str(request.get("model", "")),
        pieces=tuple(pieces),
        stop_reason=answer.stop_reason or ("tool_use" if answer.tools else "end_turn"),
        stop_sequence=answer.stop_sequence,
        input_usage=usage,
        usage_changes=answer.usage,
        edits_context="context_management" in request,
    )


def friendly_text(request: Json, usage: InputUsage) -> str:
    """What the demo says when nobody told it what to say."""
    config = request.get("output_config") or {}
    wanted = config.get("format") or {} if isinstance(config, dict) else {}
    if wanted.get("type") == "json_schema":
        return json.dumps(example_input(wanted.get("schema") or {}))
    if results := _last_tool_results(request):
        return f"The {len(results)} tool results have arrived: {'; '.join(results)}. All done."
    tools = request.get("tools") or ()
    return (
        f"Hello from the demo provider! You asked {request.get('model')} with {len(request.get('messages') or ())} "
        f"messages and {len(tools)} tools: {usage.total_tokens} input tokens, {usage.read_tokens} of them from the "
        "prompt cache. Write [[thinking]], [[tools:2]], [[error:529 x1]] or [[slow:50x100ms]] to see more."
    )


def sse(event: str, fields: Json) -> bytes:
    """One event; deltas get meaningless blanks behind them, as many as their content says."""
    text = json.dumps({"type": event, **fields}, ensure_ascii=False, separators=(",", ":"))
    blanks = " " * (sum(text.encode("utf-8", "surrogatepass")) % 16) if event == "content_block_delta" else ""
    return f"event: {event}\ndata: {text[:-1]}{blanks}}}\n\n".encode("utf-8", "surrogatepass")


def _thinking_piece(words: str | list[str], nonce: str, prefix: bytes, setting: Setting) -> Piece:
    parts = [] if setting.omits_thinking else _parts(words)
    text = "".join(parts)
    signature = sign(text, nonce, setting.account, prefix)
    deltas: list[Json] = [{"type": "thinking_delta", "thinking": part} for part in parts]
    deltas.append({"type": "signature_delta", "signature": signature})
    return Piece(
        {"type": "thinking", "thinking": text, "signature": signature},
        {"type": "thinking", "thinking": "", "signature": ""},
        tuple(deltas),
    )


def _text_piece(words: str | list[str]) -> Piece:
    parts = _parts(words)
    deltas = tuple({"type": "text_delta", "text": part} for part in parts)
    return Piece({"type": "text", "text": "".join(parts)}, {"type": "text", "text": ""}, deltas)


def _tool_piece(call_id: str, name: str, value: Json) -> Piece:
    text = json.dumps(value, ensure_ascii=False)
    fragments = [text[i : i + INPUT_FRAGMENT_CHARS] for i in range(0, len(text), INPUT_FRAGMENT_CHARS)]
    # The first fragment of the real API is empty.
    deltas = tuple({"type": "input_json_delta", "partial_json": each} for each in ("", *fragments))
    head = {"type": "tool_use", "id": call_id, "name": name}
    return Piece({**head, "input": dict(value)}, {**head, "input": {}}, deltas)


def _parts(words: str | list[str]) -> list[str]:
    return words if isinstance(words, list) else re.findall(r"\S+\s*|\s+", words)


def _last_tool_results(request: Json) -> list[str]:
    messages = request.get("messages") or ()
    users = [each for each in messages if isinstance(each, dict) and each.get("role") == "user"]
    content = users[-1].get("content") if users else None
    if not isinstance(content, list):
        return []
    results = [block for block in content if isinstance(block, dict) and block.get("type") == "tool_result"]
    return [_short(block.get("content")) for block in results]


def _short(content: object) -> str:
    if isinstance(content, list):
        content = " ".join(str(block.get("text", "")) for block in content if isinstance(block, dict))
    text = " ".join(str(content or "nothing").split())
    return text if len(text) <= 60 else text[:59] + "…"
