"""What is measured: the scenarios, the requests they send, and the bars of the table's rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

CLIENT_KEY = "sk-bench-client"
UPSTREAM_KEY = "sk-bench-upstream"

# As Claude Code sends them, beside its credential, session, host and length.
HEADERS = {
    "accept": "application/json",
    "user-agent": "claude-cli/2.1.329 (external, sdk-cli)",
    "x-app": "cli",
    "x-stainless-arch": "x64",
    "x-stainless-lang": "js",
    "x-stainless-os": "Linux",
    "x-stainless-package-version": "0.128.0",
    "x-stainless-retry-count": "0",
    "x-stainless-runtime": "node",
    "x-stainless-runtime-version": "v26.3.0",
    "x-stainless-timeout": "600",
    "anthropic-version": "2023-06-01",
    "anthropic-dangerous-direct-browser-access": "true",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,effort-2025-11-24",
    "accept-language": "*",
    "sec-fetch-mode": "cors",
    "accept-encoding": "gzip, deflate, br, zstd",
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load. `answer` tells the mock what to do, see the top of mock_upstream.c."""

    name: str
    mode: Literal["json", "sse", "hold"]
    answer: str
    connections: int
    body_kib: int = 0
    over_tls: bool = False
    ramp_s: float = 0.0
    events_per_s: int = 0  # paced: what must arrive, for the figure to count
    deltas: int = -1
    rate: float = 0.0  # requests a second, open loop; 0: as fast as they are answered
    sessions: int = 0  # that requests take in turn; 0: each connection is one
    first_session: int = 0
    requests: int = 0  # that end the window early
    body_bytes: int = 0  # instead of body_kib: a request of this size


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: a figure of a scenario, and what its ratio to nginx should be."""

    title: str
    scenario: str
    figure: Literal["cpu_us", "added_us"]
    bar: float | None = None
    aim: float | None = None
    note: str = ""


def _plain_and_tls(*scenarios: Scenario) -> dict[str, Scenario]:
    found = {scenario.name: scenario for scenario in scenarios}
    for s in scenarios:
        name = f"tls-{s.name}"
        found[name] = Scenario(
            name, s.mode, s.answer, s.connections, s.body_kib, True, s.ramp_s, s.events_per_s, s.deltas
        )
    return found


SCENARIOS = _plain_and_tls(
    Scenario("json-small", "json", "b256", 16),
    Scenario("json-200k", "json", "b256", 16, body_kib=200),
    Scenario("sse-20k", "hold", "n100000000-D2500-s24", 50, ramp_s=0.3, events_per_s=20_000),
    Scenario("first-json", "json", "b256", 1),
    # The rest follows 1 ms later: the mock must have left its core to the load generator when the first event arrives.
    Scenario("first-sse", "sse", "n1-d1-l1-s24", 1, deltas=1),
) | {
    "sse-2k": Scenario("sse-2k", "hold", "n100000000-d50-s24", 100, ramp_s=0.5, events_per_s=2_000),
}
MEMORY = Scenario("memory", "hold", "n100000000-d500-s24", 1000, ramp_s=4.0, events_per_s=2_000)
CHECK_ANSWERS = ("b256", "n5-d100")
ANSWERS = sorted({s.answer for s in (*SCENARIOS.values(), MEMORY)} | set(CHECK_ANSWERS))

ROWS = (
    Row("CPU µs per request, small JSON, 16 connections", "json-small", "cpu_us", 3.5, 2.2),
    Row("CPU µs per request, 200 KB body, 16 connections", "json-200k", "cpu_us", 2.2, 1.5),
    Row("CPU µs per SSE event, 50 streams × 400/s", "sse-20k", "cpu_us", 1.35, 1.25),
    Row("CPU µs per SSE event, 100 streams × 20/s", "sse-2k", "cpu_us"),
    Row("added µs, JSON answer, 1 connection", "first-json", "added_us", 1.5, 1.2),
    Row("added µs to the first SSE event, 1 connection", "first-sse", "added_us", 1.5, 1.2),
    Row("TLS: CPU µs per request, small JSON", "tls-json-small", "cpu_us", 3.2, 2.0),
    Row("TLS: CPU µs per request, 200 KB body", "tls-json-200k", "cpu_us", 1.3, 1.0),
    Row("TLS: CPU µs per SSE event, 50 streams × 400/s", "tls-sse-20k", "cpu_us", 1.35, 1.25),
    Row("TLS: added µs, JSON answer, 1 connection", "tls-first-json", "added_us"),
    Row("TLS: added µs to the first SSE event, 1 connection", "tls-first-sse", "added_us"),
)
MEMORY_BARS = {"idle": (80.0, 60.0), "per_1000": (40.0, 25.0)}  # MiB of RSS: bar, aim


def asked_model(answer: str, over_tls: bool = False) -> str:
    """The name a client of the relay says; the provider's mapping makes the mock's of it."""
    return f"claude-{'tls' if over_tls else 'plain'}-{answer}"


def mock_model(answer: str) -> str:
    return f"claude-mock-{answer}"


def request_body(model: str, stream: bool, kib: int = 0) -> bytes:
    """A request in the shape of Claude Code's: small, or a long dialogue with tools of about `kib` KiB."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Please list the files here, then fix the failing test."}
    ]
    body: dict[str, Any] = {"model": model, "messages": messages}
    if kib:
        body["system"] = [
            {"type": "text", "text": "You are a coding agent.", "cache_control": {"type": "ephemeral"}},
            {
                "type": "text",
                "text": "Follow the rules of the repository. " * 200,
                "cache_control": {"type": "ephemeral"},
            },
        ]
        body["tools"] = [_tool(number) for number in range(16)]
    identity = {"device_id": "0" * 64, "account_uuid": "", "session_id": "00000000-0000-4000-8000-000000000000"}
    body |= {"metadata": {"user_id": json.dumps(identity)}, "max_tokens": 4096, "stream": stream}
    missing = kib * 1024 - len(json.dumps(body))
    turn = 0
    while missing > 0:
        turn += 1
        exchange = _tool_turn(turn)
        messages += exchange
        missing -= len(json.dumps(exchange))
    return json.dumps(body, separators=(",", ":")).encode()


def sized_body(model: str, size: int) -> bytes:
    """A request of about `size` bytes, 400 at least; as request_body makes it from 100 KB on, below with one long message."""
    if size >= 100_000:
        return request_body(model, False, size // 1024)
    small = request_body(model, False)
    code = "def handler(self, request: Request) -> None:  # line of a file\\n" * (size // 60 + 1)
    return small.replace(b'"Please', b'"' + code[: max(0, size - len(small))].rstrip("\\").encode() + b"Please", 1)


def _tool(number: int) -> dict[str, Any]:
    properties = {
        "path": {"type": "string", "description": "The absolute path of the file to work on"},
        "model": {"type": "string", "description": "A property whose name is that of a field of the request"},
        "stream": {"type": "boolean", "description": "Another one"},
        "flags": {"type": "array", "items": {"type": "string", "enum": ["a", "b", "c"]}},
    }
    return {
        "name": f"Tool{number}",
        "description": f"Tool {number}. " + "It reads, writes or runs something, and says what it did. " * 8,
        "input_schema": {
            "type": "object",
            "required": ["path"],
            "additionalProperties": False,
            "properties": properties,
        },
    }


def _tool_turn(number: int) -> list[dict[str, Any]]:
    call_id = f"toolu_{number:06d}"
    code = "".join(
        f'{n:6d}\tdef handler_{number}_{n}(self, request: "Request", *, limit: int = {n}) -> None:\n'
        for n in range(1, 60)
    )
    call = {
        "type": "tool_use",
        "id": call_id,
        "name": f"Tool{number % 16}",
        "input": {"path": f"/src/pkg/module_{number}.py"},
    }
    return [
        {"role": "assistant", "content": [{"type": "text", "text": f"Step {number}: the next file."}, call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": code}]},
    ]
