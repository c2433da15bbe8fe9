"""What clients and providers say that this version does not know: names of betas, body keys, headers and events, never values.

Pure. New versions of Claude Code and of the API add such names all the time, and the relay passes them on unread; knowing of them is
for whoever looks after the relay. Source of what is known: docs/providers/anthropic.md, docs/providers/claude-code.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from ccr_data.core.records import Tokens
from ccr_data.core.sse import UsageTap

MAX_BODY_BYTES = 2 << 20
"""Larger bodies are not looked at: reading their keys takes too long for one sitting."""
MAX_NAMES = 32
"""Of one request or stream."""


class UnknownName(NamedTuple):
    """A name that this version does not know."""

    kind: str  # "beta", "body_key", "header", "event_type"
    name: str
    said_by: str  # the client and its version, or the provider


BODY_KEYS = frozenset(
    [
        "requests",  # of a batch
        "model",
        "max_tokens",
        "messages",
        "system",
        "stream",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "metadata",
        "stop_sequences",
        "service_tier",
        "speed",
        "inference_geo",
        "container",
        "cache_control",
        "diagnostics",
        "context_management",
        "mcp_servers",
        "compaction",
        "fallbacks",
        "fallback_credit_token",
        "billing_policy",
        "thread",
        "temperature",
        "top_p",
        "top_k",
        "output_format",
        "user_profile_id",
        "anthropic_version",
        "anthropic_beta",
    ]
)
HEADERS = frozenset(
    [
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "connection",
        "content-type",
        "content-length",
        "cookie",
        "origin",
        "referer",
        "transfer-encoding",
        "x-api-key",
        "x-app",
        "anthropic-version",
        "anthropic-beta",
        "anthropic-workspace-id",
        "anthropic-user-profile-id",
        "anthropic-dangerous-direct-browser-access",
        "traceparent",
        "tracestate",
        "baggage",
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-real-ip",
        "x-request-id",
        "x-client-request-id",
        "idempotency-key",
        "x-claude-code-session-id",
        "x-claude-code-agent-id",
        "x-claude-code-parent-agent-id",
        "cache-control",
        "pragma",
        "dnt",
        "sec-fetch-mode",
        "sec-fetch-site",
        "sec-fetch-dest",
        "keep-alive",
        "te",
        "expect",
        "priority",
        "x-claude-remote-session-id",
        "x-claude-remote-container-id",
        "x-anthropic-additional-protection",
    ]
)
_HEADER_FAMILIES = ("x-stainless-", "sec-ch-")
EVENT_TYPES = frozenset(
    [
        "message_start",
        "message_delta",
        "message_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "ping",
        "error",
    ]
)
BETAS = frozenset(
    [
        "interleaved-thinking-2025-05-14",
        "context-management-2025-06-27",
        "context-1m-2025-08-07",
        "extended-cache-ttl-2025-04-11",
        "prompt-caching-2024-07-31",
        "pdfs-2024-09-25",
        "token-counting-2024-11-01",
        "token-efficient-tools-2025-02-19",
        "files-api-2025-04-14",
        "skills-2025-10-02",
        "message-batches-2024-09-24",
        "mcp-client-2025-04-04",
        "mcp-client-2025-11-20",
        "mcp-client-2026-09-15",
        "code-execution-2025-05-22",
        "computer-use-2024-10-22",
        "computer-use-2025-01-24",
        "computer-use-2025-11-24",
        "output-128k-2025-02-19",
        "output-300k-2026-03-24",
        "dev-full-thinking-2025-05-14",
        "model-context-window-exceeded-2025-08-26",
        "structured-outputs-2025-11-13",
        "fast-mode-2026-02-01",
        "compact-2026-01-12",
        "compact-2026-09-04",
        "task-budgets-2026-03-13",
        "advisor-tool-2026-03-01",
        "server-side-fallback-2026-06-01",
        "server-side-fallback-2026-07-01",
        "fallback-credit-2026-06-01",
        "fallback-credit-2026-07-01",
        "mid-conversation-tool-changes-2026-07-01",
        "mid-conversation-output-config-2026-07-01",
        "mid-conversation-system-clear-at-2026-08-21",
        "mid-conversation-system-2026-04-07",
        "inline-tools-2026-09-15",
        "thinking-token-count-2026-05-13",
        "thinking-display-updates-2026-08-18",
        "thinking-binding-controls-2026-08-01",
        "message-threads-2026-08-12",
        "cache-diagnosis-2026-04-07",
        "managed-agents-2026-04-01",
        "agent-memory-2026-07-22",
        "claude-code-20250219",
        "oauth-2025-04-20",
        "per-turn-control-2026-07-01",
        "advanced-tool-use-2025-11-20",
        "effort-2025-11-24",
        "tool-search-tool-2025-10-19",
        "fine-grained-tool-streaming-2025-05-14",
    ]
)

_BETA = re.compile(
    r"[a-z][a-z0-9]*(-[a-z0-9]+)*-(\d{8}|\d{4}-\d\d-\d\d)", re.ASCII
)  # nothing else is the name of a beta
_KEY = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+){0,7}", re.ASCII)
_HEADER = re.compile(rb"([A-Za-z][A-Za-z0-9-]{0,63}):[ \t]*([^\r\n]*)")
_CLIENT = re.compile(rb"([A-Za-z][A-Za-z0-9_-]{0,31})/(\d[0-9A-Za-z.]{0,15})(?![0-9A-Za-z.])")
_EVENT = re.compile(rb"[\r\n]event: ?([a-z][a-z0-9_.]{0,63})[\r\n]")
_WORDS_MAX = 64

_decode_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def unknown_in_request(lines: Sequence[bytes], body: bytes) -> list[UnknownName]:
    """What a request names that is not known: header lines as they came, and the top-level keys of its body.

    A name that looks as if a value or a secret had got into its place is left out.
    """
    said_by, betas, headers = "", list[str](), list[str]()
    for line in lines:
        found = _HEADER.match(line)
        if found is None:
            continue
        name = found[1].decode().lower()
        if name == "user-agent":
            client = _CLIENT.match(found[2])
            said_by = f"{client[1].decode()}/{client[2].decode()}" if client is not None else ""
        elif name == "anthropic-beta":
            betas += [one.strip() for one in found[2].decode("latin-1").split(",")]
        elif name not in HEADERS and not name.startswith(_HEADER_FAMILIES):
            headers.append(name)
    seen = [("beta", one) for one in betas if one not in BETAS and _is_name(_BETA, one)]
    seen += [("header", one) for one in headers if not _is_random(one)]
    seen += [("body_key", one) for one in _keys(body) if one not in BODY_KEYS and _is_name(_KEY, one)]
    return [UnknownName(kind, name, said_by) for kind, name in dict.fromkeys(seen[:MAX_NAMES])]


def _is_name(pattern: re.Pattern[str], text: str) -> bool:
    return len(text) <= _WORDS_MAX and pattern.fullmatch(text) is not None and not _is_random(text)


def _is_random(text: str) -> bool:
    """Whether a part of it is longer than words are, or mixes letters and digits as identifiers and keys do."""
    return any(
        len(part) > 24 or (len(part) > 8 and any(map(str.isdigit, part)) and not part.isdigit())
        for part in re.split(r"[-_.]", text)
    )


def _keys(body: bytes) -> Iterator[str]:
    if not body or len(body) > MAX_BODY_BYTES:
        return
    try:
        yield from _decode_keys(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):  # a provider will say so
        return


class NamingTap(UsageTap):
    """Reads usage, and the names of events that are not known. It costs more than one that does not: for few streams only."""

    __slots__ = ("_names", "_rest")

    def __init__(self, tokens: Tokens, names: set[str]) -> None:
        """`names` gets what is not known, at most `MAX_NAMES`."""
        super().__init__(tokens)
        self._names = names
        self._rest = b"\n"

    def feed(self, data: bytes, start: int, end: int) -> None:
        """Look at `data[start:end]`."""
        super().feed(data, start, end)
        text = self._rest + data[start:end]
        for name in _new(_EVENT.findall(text), self._names):
            self._names.add(name)
        self._rest = text[-(_WORDS_MAX + 10) :]  # a line may be cut anywhere; what is found twice is still one name


def _new(found: Iterable[bytes], known: set[str]) -> Iterator[str]:
    for raw in found:
        name = raw.decode()
        if name not in EVENT_TYPES and name not in known and len(known) < MAX_NAMES and not _is_random(name):
            yield name
