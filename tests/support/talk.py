"""A client that holds a conversation as Claude Code does: it repeats everything, byte for byte, and adds a turn.

One cache marker behind the system prompt and one at the newest turn; thinking blocks and tool calls go back as they came.
"""

from __future__ import annotations

import json
from typing import Any

from support.client import Answer, RawClient
from support.relay import AUTH

SYSTEM = [{"type": "text", "text": "You are helpful. " * 500, "cache_control": {"type": "ephemeral"}}]
TOOLS = [
    {
        "name": "Read",
        "description": "Reads a file",
        "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}}, "required": ["file_path"]},
    }
]


def whole(stream: bytes) -> dict[str, Any]:
    """The message that a stream of server-sent events tells. Raises AssertionError if it does not tell all of it."""
    message: dict[str, Any] = {}
    names = []
    for each in stream.split(b"\n\n"):
        if not each.startswith(b"event:"):
            continue
        event = json.loads(each.partition(b"data:")[2])
        names.append(event["type"])
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                message["content"].append(event["content_block"] | {"_json": ""})
            case "content_block_delta":
                _grow(message["content"][event["index"]], event["delta"])
            case "content_block_stop":
                block = message["content"][event["index"]]
                if text := block.pop("_json"):
                    block["input"] = json.loads(text)
            case "message_delta":
                message["usage"] |= event["usage"]
    assert names[-1] == "message_stop", stream[-300:]
    return message


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    match delta["type"]:
        case "input_json_delta":
            block["_json"] += delta["partial_json"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case kind:
            name = kind.removesuffix("_delta")
            block[name] += delta[name]


class Talk:
    """One conversation."""

    def __init__(self, url: str, model: str, *lines: str, thinking: bool = True, streams: bool = False) -> None:
        self.url = url
        self.model = model
        self.lines = lines
        self.has_thinking = thinking
        self.streams = streams
        self.mode: dict[str, Any] = {"type": "adaptive", "display": "omitted"}
        self.messages: list[dict[str, Any]] = []
        self.answers: list[Answer] = []
        self.usages: list[dict[str, int]] = []

    def say(self, text: str) -> Answer:
        """A turn of the user's."""
        directive = "[[thinking]] " if self.has_thinking else ""
        return self._turn([{"type": "text", "text": directive + text}])

    def bring_results(self, text: str = "[[thinking]]") -> Answer:
        """The results of the tools that the last answer called."""
        calls = [block for block in self.messages[-1]["content"] if block["type"] == "tool_use"]
        results: list[dict[str, Any]] = [
            {"type": "tool_result", "tool_use_id": call["id"], "content": "something"} for call in calls
        ]
        return self._turn([*results, {"type": "text", "text": text}])

    def body(self) -> bytes:
        """The request as it stands."""
        *earlier, last = self.messages
        *blocks, end = last["content"]
        marked = {**last, "content": [*blocks, {**end, "cache_control": {"type": "ephemeral"}}]}
        fields: dict[str, Any] = {"model": self.model, "messages": [*earlier, marked], "system": SYSTEM, "tools": TOOLS}
        if self.has_thinking:
            fields["thinking"] = self.mode
        return json.dumps({**fields, "max_tokens": 4000, "stream": self.streams}, separators=(",", ":")).encode()

    def _turn(self, content: list[dict[str, Any]]) -> Answer:
        self.messages.append({"role": "user", "content": content})
        with RawClient(self.url) as connection:
            answer = connection.ask(
                "POST", "/v1/messages", self.body(), AUTH, "anthropic-version: 2023-06-01", *self.lines
            )
        self.answers.append(answer)
        if answer.status == 200:
            message = whole(answer.body) if self.streams else json.loads(answer.body)
            self.messages.append({"role": "assistant", "content": message["content"]})
            self.usages.append(message["usage"])
        else:
            self.messages.pop()
        return answer

    def attempts(self) -> list[int]:
        """How many attempts each turn took."""
        return [int(answer.header("x-cc-relay-attempts") or 0) for answer in self.answers]

    def read_share(self) -> float:
        """Cache reads among all input tokens."""
        read = sum(usage["cache_read_input_tokens"] for usage in self.usages)
        return read / sum(
            usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"] + usage["input_tokens"]
            for usage in self.usages
        )
