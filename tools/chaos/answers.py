"""What providers answer and clients ask, in a form that both ends can compute: so answers are compared byte for byte. Pure.

Every text holds a canary: a word that must never be found in a log, a metric, the control plane's store or on a disk. Every
credential is one, too, and says whose it is.
"""

from __future__ import annotations

import json
import re

PROMPT, TOOL, OUTPUT = b"canary-prompt-5d1e", b"canary-tool-91c0", b"canary-output-7be4"
TEXTS = (PROMPT, TOOL, OUTPUT)
SECRET = b"sk-canary-"  # how the providers' credentials begin
CLIENT_KEY = "canary-client-key-c3a8"
MODEL = "claude-test"

_NUMBER = re.compile(rb'"call (\d+) of (\d+) events every (\d+) ms ')


def secret(provider: str, label: str, rotation: int) -> str:
    """A credential; it says which provider it is for."""
    return f"{SECRET.decode()}{provider}-{label}-{rotation}"


def request_body(number: int, events: int, gap_ms: int, turn: int) -> bytes:
    """What a client asks; 0 events ask for an answer in one piece."""
    asked = f"call {number} of {events} events every {gap_ms} ms {PROMPT.decode()} "
    tool = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"what": TOOL.decode()}}
    before = [
        {"role": "user", "content": f"{PROMPT.decode()} before"},
        {"role": "assistant", "content": [tool]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": TOOL.decode()}]},
        {"role": "assistant", "content": "and then"},
    ]
    messages = before * min(turn, 3) + [{"role": "user", "content": asked}]
    body: dict[str, object] = {"model": MODEL, "max_tokens": 9, "messages": messages}
    if events:
        body["stream"] = True
    return json.dumps(body, separators=(",", ":")).encode()


def asked(body: bytes) -> tuple[int, int, int]:
    """Number, events and milliseconds between them. Raises ValueError if it is no request of ours."""
    found = _NUMBER.search(body)
    if found is None:
        raise ValueError("not a request of the load")
    return int(found[1]), int(found[2]), int(found[3])


def usage(number: int) -> tuple[int, int]:
    """Input and output tokens of an answer: different for each, so that sums tell one from two others."""
    return 1000 + number % 997, 10 + number % 89


def whole_answer(number: int, provider: str, mark: str) -> bytes:
    """An answer in one piece."""
    tokens = usage(number)
    answer = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": f"{provider} {mark}",
        "content": [{"type": "text", "text": f"{OUTPUT.decode()} é😀" * 5}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]},
    }
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def event(name: str, data: object) -> bytes:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def stream_events(number: int, events: int, provider: str, mark: str) -> list[bytes]:
    """An answer in pieces: message_start first, then the content, `events` deltas long, and its end."""
    tokens = usage(number)
    message = {
        "id": f"msg_{number}",
        "model": f"{provider} {mark}",
        "usage": {"input_tokens": tokens[0], "output_tokens": 1},
    }
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    text = f"{OUTPUT.decode()} é😀"
    return [
        event("message_start", {"type": "message_start", "message": message}),
        event("content_block_start", block),
        *(
            event(
                "content_block_delta",
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"{n} {text}"}},
            )
            for n in range(events)
        ),
        event("content_block_stop", {"type": "content_block_stop", "index": 0}),
        event(
            "message_delta",
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": tokens[1]},
            },
        ),
        event("message_stop", {"type": "message_stop"}),
    ]


def error_event(kind: str) -> bytes:
    """How a provider ends a stream that fails."""
    return event("error", {"type": "error", "error": {"type": kind, "message": "no"}})


def error_body(kind: str) -> bytes:
    """How a provider refuses."""
    return json.dumps({"type": "error", "error": {"type": kind, "message": "no"}}).encode()
