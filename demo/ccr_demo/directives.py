"""Directives in the user's text: `ccr serve --demo` as a toy and a test bench, without a script.

Pure. Directives stand in double brackets anywhere in the last user message and can be combined:

    [[text:Hello there]]          answer exactly this
    [[thinking]]                  think first, in a signed block; [[thinking:words]] gives the words
    [[redacted]]                  a redacted_thinking block
    [[tools:2]]                   call two of the offered tools in parallel, with inputs made from their schemas
    [[tool:Bash {"command": "ls"}]]   call this one; repeat for more
    [[error:529]]                 this status, in the API's error shape; [[error:529 x2]]: only the first two times
    [[error:429 retry-after=1]]   with this header
    [[html:502]]                  the same as a web page
    [[error_event:overloaded_error]]  an error event in the stream; [[error_event:api_error after=4]]
    [[cut:3]]                     the connection closes after 3 events; [[cut:3 reset]], [[cut:3 end]]
    [[slow:20x50ms]]              20 words, 50 ms apart
    [[gap:10s]]                   silence after the first words
    [[pings:2]]                   a ping after every 2 events
    [[wait:3s]]                   nothing at all before the answer
    [[big:100]]                   100 KB of text
    [[max_tokens]] [[refusal]] [[pause_turn]]   stop for that reason

`x2` counts per text, so that a client's retry gets through. Cuts and error events need a stream: the repetition
without one succeeds, as with the real API.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ccr_demo.script import Answer, ToolCall

_DIRECTIVE = re.compile(r"\[\[([a-z_]+)(?::(.*?))?\]\]", re.DOTALL)
_THOUGHT = "The user would like to see me think, so I think about relays for a moment and then answer."
_STOP_REASONS = ("max_tokens", "refusal", "pause_turn", "stop_sequence", "model_context_window_exceeded")

Json = Mapping[str, Any]
Changes = dict[str, Any]


def last_user_text(fields: Json) -> str:
    """The texts of the last user message, tool results left out."""
    for message in reversed(fields.get("messages") or ()):
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        content = message.get("content")
        if isinstance(content, str):
            return content
        return "\n".join(
            str(block.get("text", "")) for block in content or () if isinstance(block, dict) and block.get("text")
        )
    return ""


def read_directives(fields: Json, times_seen: int) -> Answer | None:
    """The answer that the user's text asks for, or None if it has no directive.

    `times_seen` says how often this text came before, for `x2`. What cannot be understood is ignored.
    """
    changes: Changes = {}
    found = False
    for name, argument in _DIRECTIVE.findall(last_user_text(fields)):
        if name in _STOP_REASONS:
            changes["stop_reason"] = name
        elif name in _READERS:
            _READERS[name](changes, argument.strip(), fields, times_seen)
        else:
            continue
        found = True
    return msgspec.convert(changes, Answer) if found else None


def _text(changes: Changes, argument: str, *_: object) -> None:
    changes["text"] = argument


def _thinking(changes: Changes, argument: str, *_: object) -> None:
    changes["thinking"] = argument or _THOUGHT


def _redacted(changes: Changes, *_: object) -> None:
    changes["redacted"] = True


def _tools(changes: Changes, argument: str, fields: Json, _: int) -> None:
    count = int(_number(argument, 1))
    offered = [tool for tool in fields.get("tools") or () if isinstance(tool, dict) and "input_schema" in tool]
    calls = [ToolCall(str(tool["name"]), example_input(tool["input_schema"])) for tool in harmless_first(offered)]
    changes.setdefault("tools", []).extend((calls * count)[:count])


def _tool(changes: Changes, argument: str, *_: object) -> None:
    name, _space, text = argument.partition(" ")
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = {"input": text}
    changes.setdefault("tools", []).append(ToolCall(name, value if isinstance(value, dict) else {"input": value}))


def _error(changes: Changes, argument: str, _fields: Json, times_seen: int) -> None:
    if times_seen >= _number(_after(argument, r"\bx(\d+)"), float("inf")):
        return
    changes["status"] = int(_number(argument, 529))
    if seconds := _after(argument, r"retry-after=(\d+)"):
        changes["retry_after_s"] = float(seconds)


def _html(changes: Changes, argument: str, fields: Json, times_seen: int) -> None:
    _error(changes, argument or "502", fields, times_seen)
    changes["html"] = True


def _error_event(changes: Changes, argument: str, *_: object) -> None:
    changes["error_event"] = argument.split(maxsplit=1)[0] if argument else "overloaded_error"
    changes["error_event_after"] = int(_number(_after(argument, r"after=(\d+)"), 1))


def _cut(changes: Changes, argument: str, *_: object) -> None:
    changes["cut_after_event"] = int(_number(argument, 3))
    changes["cut"] = _after(argument, r"\b(reset|end)\b") or "close"


def _slow(changes: Changes, argument: str, *_: object) -> None:
    count, _x, pause = argument.partition("x")
    changes["text"] = [f"word {i} " for i in range(1, int(_number(count, 20)) + 1)]
    changes["delay_ms"] = seconds(pause or "50ms") * 1000


def _gap(changes: Changes, argument: str, *_: object) -> None:
    changes["gap_s"] = seconds(argument or "10s")
    changes["gap_after_event"] = 4  # message_start, content_block_start, ping, the first words


def _pings(changes: Changes, argument: str, *_: object) -> None:
    changes["ping_every"] = int(_number(argument, 1))


def _wait(changes: Changes, argument: str, *_: object) -> None:
    changes["pause_before_head_ms"] = seconds(argument or "3s") * 1000


def _big(changes: Changes, argument: str, *_: object) -> None:
    line = "A relay passes on every byte as it came, in the order it came, and at once. "
    kilobytes = min(int(_number(argument, 100)), 100_000)
    changes["text"] = [line * 13] * kilobytes


_READERS: Mapping[str, Callable[[Changes, str, Json, int], None]] = {
    "text": _text,
    "thinking": _thinking,
    "redacted": _redacted,
    "tools": _tools,
    "tool": _tool,
    "error": _error,
    "html": _html,
    "error_event": _error_event,
    "cut": _cut,
    "slow": _slow,
    "gap": _gap,
    "pings": _pings,
    "wait": _wait,
    "big": _big,
}


def harmless_first(tools: Sequence[Json]) -> list[Json]:
    """The tools in the order in which a demo should call them: those that only read, then the others."""
    order = ["Read", "Glob", "Grep", "Bash"]
    return sorted(tools, key=lambda tool: order.index(tool["name"]) if tool.get("name") in order else len(order))


def example_input(schema: Json) -> dict[str, Any]:
    """An input with the required properties of a JSON schema, each of its type."""
    properties = schema.get("properties") or {}
    return {str(name): _example(str(name), properties.get(name) or {}) for name in schema.get("required") or ()}


def _example(name: str, schema: Json) -> Any:
    if schema.get("enum"):
        return schema["enum"][0]
    match schema.get("type"):
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
        case "array":
            return []
        case "object":
            return example_input(schema)
    known = {"command": "echo hello from the demo provider", "file_path": "README.md", "pattern": "*", "path": "."}
    return known.get(name, "demo")


def seconds(text: str) -> float:
    """`50ms`, `10s` or `2m` in seconds; a bare number counts seconds; 0 if it is none of these."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m)?\s*", text)
    if match is None:
        return 0.0
    return float(match[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}[match[2]]


def _number(text: str, default: float) -> float:
    match = re.match(r"\s*(\d+)", text)
    return float(match[1]) if match else default


def _after(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""
