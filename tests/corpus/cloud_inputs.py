"""What is asked of every cloud in two ways, through the official SDK's client for it and through the relay, and must arrive the same.

    for each in cloud_inputs():
        ...  # each.name, .body, .betas, .headers, .counts

Bodies are what a caller of the Messages API writes; `model` is the Claude API's name. Every one is a request that some cloud takes;
which cloud takes which feature is not asked here: a relay hands on what it does not know.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

OPUS = "claude-opus-5-5"
SONNET = "claude-sonnet-5-5"
HAIKU = "claude-haiku-4-5"
MODELS = (OPUS, SONNET, HAIKU)

Json = dict[str, Any]


@dataclass(frozen=True)
class CloudInput:
    """One request of the Messages API."""

    name: str
    body: Json
    betas: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    counts: bool = False  # asks for a count of tokens

    @property
    def streams(self) -> bool:
        """Whether a streamed answer is asked for."""
        return self.body.get("stream") is True

    def streamed(self) -> CloudInput:
        """The same, its answer streamed."""
        return replace(self, name=f"{self.name}, streamed", body={**self.body, "stream": True})


def said(text: Any = "Hello") -> list[Json]:
    """A conversation of one turn."""
    return [{"role": "user", "content": text}]


def asking(messages: Any = None, **fields: Any) -> Json:
    """A body."""
    return {"model": OPUS, "max_tokens": 1024, "messages": said() if messages is None else messages, **fields}


EPHEMERAL = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
CALL = "toolu_01A09q90qw90lq917835lq9"
OTHER_CALL = "toolu_01B09q90qw90lq917835lq9"
SIGNATURE = base64.b64encode(b"a signature, opaque to everybody" * 6).decode()
WEATHER = {
    "name": "get_weather",
    "description": "The weather at a place",
    "input_schema": {
        "type": "object",
        "properties": {"place": {"type": "string"}, "model": {"type": "string"}, "stream": {"type": "boolean"}},
        "required": ["place"],
        "additionalProperties": False,
    },
}
BASH = {"name": "Bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}}


def png(width: int = 2) -> str:
    """A small real picture in base64."""

    def part(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + (1).to_bytes(4, "big") + b"\x08\x02\0\0\0"
    rows = zlib.compress(b"\0" + b"\x10\x80\xf0" * width)
    return base64.b64encode(
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", rows) + part(b"IEND", b"")
    ).decode()


def pdf() -> str:
    """A small PDF in base64."""
    return base64.b64encode(b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n").decode()


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png()}}
DOCUMENT = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": pdf()},
    "title": "Ein Blatt",
    "citations": {"enabled": True},
}
TOOL_TURNS: list[Json] = [
    {"role": "user", "content": "What is the weather in Paris and in Oslo?"},
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": CALL, "name": "get_weather", "input": {"place": "Paris", "model": "x"}},
            {"type": "tool_use", "id": OTHER_CALL, "name": "get_weather", "input": {"place": "Oslo", "stream": True}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": CALL, "content": "18 °C"},
            {
                "type": "tool_result",
                "tool_use_id": OTHER_CALL,
                "is_error": True,
                "content": [{"type": "text", "text": "no"}],
            },
        ],
    },
]
THOUGHT_TURNS: list[Json] = [
    {"role": "user", "content": "Think."},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "", "signature": SIGNATURE},
            {"type": "redacted_thinking", "data": SIGNATURE},
            {"type": "text", "text": "Done."},
        ],
    },
    {"role": "user", "content": "And again."},
]
SYSTEM_TURN = {"role": "system", "content": [{"type": "text", "text": "The time is noon."}]}


def _plain() -> list[CloudInput]:
    return [
        CloudInput("one word", asking()),
        CloudInput("another model", asking(model=SONNET)),
        CloudInput("an older model", asking(model=HAIKU)),
        CloudInput("stream is false", asking(stream=False)),
        CloudInput("a text block", asking(said([{"type": "text", "text": "Hello"}]))),
        CloudInput("many blocks", asking(said([{"type": "text", "text": f"part {n}"} for n in range(20)]))),
        CloudInput(
            "a conversation",
            asking([*said(), {"role": "assistant", "content": "Hi."}, *said("How are you?")]),
        ),
        CloudInput("a word put into its mouth", asking([*said(), {"role": "assistant", "content": "I am"}])),
        CloudInput("stop sequences", asking(stop_sequences=["END", "\n\nHuman:"])),
        CloudInput("sampling", asking(model=HAIKU, temperature=0.0, top_k=5)),
        CloudInput("sampling by top_p", asking(model=HAIKU, top_p=0.95)),
        CloudInput("metadata", asking(metadata={"user_id": '{"device_id":"d3","session_id":"5e55"}'})),
        CloudInput("service tier", asking(service_tier="standard_only")),
        CloudInput("a long answer", asking(max_tokens=128_000, stream=True)),
        CloudInput("one token", asking(max_tokens=1)),
    ]


def _unicode() -> list[CloudInput]:
    return [
        CloudInput("umlauts", asking(said("Grüße aus Köln, «naïve café»"))),
        CloudInput("emoji and combined signs", asking(said("👩‍👩‍👧‍👦 é é 🇩🇪"))),
        CloudInput("Chinese, Arabic, Hindi", asking(said("你好，世界 مرحبا بالعالم नमस्ते"))),
        CloudInput("controls and separators", asking(said("a\tb\nc\r\nd\u2028e\u2029f\u0000g\u001fh\u007f"))),
        CloudInput("quotes and backslashes", asking(said('C:\\path\\"quoted" </script> \\u0041 {"model":"x"}'))),
        CloudInput("beyond the basic plane", asking(said("𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010ffff"))),
        CloudInput("a system prompt in Greek", asking(system="Απάντησε στα ελληνικά.")),
        CloudInput("half a megabyte", asking(said("0123456789abcdef" * 32_768))),
    ]


def _system() -> list[CloudInput]:
    blocks = [{"type": "text", "text": "You are terse."}, {"type": "text", "text": "Very."}]
    cached = [{"type": "text", "text": "You are terse. " * 300, "cache_control": EPHEMERAL}]
    later = [*said(), {"role": "assistant", "content": "Hi."}, *said("Go on."), SYSTEM_TURN]
    return [
        CloudInput("system as text", asking(system="You are terse.")),
        CloudInput("system as blocks", asking(system=blocks)),
        CloudInput("system with a cache marker", asking(system=cached)),
        CloudInput("a system turn", asking([*said(), SYSTEM_TURN])),
        CloudInput("a later system turn", asking(later)),
        CloudInput(
            "a system turn with a cache marker",
            asking(
                [*said(), {"role": "system", "content": [{"type": "text", "text": "Now.", "cache_control": EPHEMERAL}]}]
            ),
        ),
        CloudInput("a system turn as text", asking([*said(), {"role": "system", "content": "Now."}])),
    ]


def _tools() -> list[CloudInput]:
    return [
        CloudInput("a tool", asking(tools=[WEATHER])),
        CloudInput("two tools, any of them", asking(tools=[WEATHER, BASH], tool_choice={"type": "any"})),
        CloudInput(
            "one tool, that one",
            asking(model=HAIKU, tools=[WEATHER], tool_choice={"type": "tool", "name": "get_weather"}),
        ),
        CloudInput(
            "no parallel calls",
            asking(tools=[WEATHER], tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
        ),
        CloudInput("no tool", asking(tools=[WEATHER], tool_choice={"type": "none"})),
        CloudInput("results of two tools", asking(TOOL_TURNS, tools=[WEATHER])),
        CloudInput("a cached tool", asking(tools=[BASH, {**WEATHER, "cache_control": EPHEMERAL}])),
        CloudInput("a strict tool", asking(tools=[{**WEATHER, "strict": True}])),
        CloudInput(
            "a result with an image",
            asking(
                [
                    *TOOL_TURNS[:2],
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "tool_use_id": CALL,
                                "content": [IMAGE, {"type": "text", "text": "see"}],
                            },
                            {"type": "tool_result", "tool_use_id": OTHER_CALL, "content": ""},
                        ],
                    },
                ],
                tools=[WEATHER],
            ),
        ),
        CloudInput(
            "fifty tools", asking(tools=[{**BASH, "name": f"tool_{n}", "description": "é" * n} for n in range(50)])
        ),
        CloudInput(
            "tools streamed as they come", asking(tools=[{**WEATHER, "eager_input_streaming": True}], stream=True)
        ),
    ]


def _thinking() -> list[CloudInput]:
    return [
        CloudInput(
            "thinking with a budget",
            asking(model=HAIKU, max_tokens=4096, thinking={"type": "enabled", "budget_tokens": 2048}),
        ),
        CloudInput("adaptive thinking", asking(thinking={"type": "adaptive"})),
        CloudInput("adaptive thinking, omitted", asking(thinking={"type": "adaptive", "display": "omitted"})),
        CloudInput("no thinking", asking(model=HAIKU, thinking={"type": "disabled"})),
        CloudInput("thinking handed back", asking(THOUGHT_TURNS, thinking={"type": "adaptive"})),
        CloudInput("effort", asking(thinking={"type": "adaptive"}, output_config={"effort": "medium"})),
    ]


def _caching() -> list[CloudInput]:
    marked = [{"type": "text", "text": "Remember this.", "cache_control": EPHEMERAL}]
    for_an_hour = [{"type": "text", "text": "Remember this for long.", "cache_control": HOUR}]
    many = [{"type": "text", "text": f"part {n}", **({"cache_control": EPHEMERAL} if n % 2 else {})} for n in range(8)]
    return [
        CloudInput("a cache marker", asking(said(marked))),
        CloudInput("a cache marker for an hour", asking(said(for_an_hour))),
        CloudInput("four cache markers", asking(said(many))),
        CloudInput(
            "markers in everything",
            asking(
                said(marked),
                system=[{"type": "text", "text": "Terse.", "cache_control": HOUR}],
                tools=[{**BASH, "cache_control": HOUR}],
            ),
        ),
    ]


def _media() -> list[CloudInput]:
    return [
        CloudInput("an image", asking(said([IMAGE, {"type": "text", "text": "What is this?"}]))),
        CloudInput("two images", asking(said([IMAGE, {"type": "text", "text": "and"}, IMAGE]))),
        CloudInput(
            "an image of some size", asking(said([{**IMAGE, "source": {**IMAGE["source"], "data": png(9000)}}]))
        ),  # type: ignore[dict-item]  # of one shape
        CloudInput("a cached image", asking(said([{**IMAGE, "cache_control": EPHEMERAL}]))),
        CloudInput("a PDF", asking(said([DOCUMENT, {"type": "text", "text": "Summarise."}]))),
        CloudInput(
            "a text document",
            asking(
                said([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Zeile\n"}}])
            ),
        ),
        CloudInput(
            "a search result",
            asking(
                said(
                    [
                        {
                            "type": "search_result",
                            "source": "doc-1",
                            "title": "t",
                            "content": [{"type": "text", "text": "x"}],
                        }
                    ]
                )
            ),
        ),
    ]


def _betas() -> list[CloudInput]:
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    return [
        CloudInput("a beta", asking(), ("context-1m-2025-08-07",)),
        CloudInput("two betas", asking(), ("context-1m-2025-08-07", "token-efficient-tools-2025-02-19")),
        CloudInput(
            "interleaved thinking",
            asking(TOOL_TURNS, tools=[WEATHER], thinking={"type": "adaptive"}),
            ("interleaved-thinking-2025-05-14",),
        ),
        CloudInput("context management", asking(context_management=edits), ("context-management-2025-06-27",)),
        CloudInput("counted thinking", asking(thinking={"type": "adaptive"}), ("thinking-token-count-2026-05-13",)),
        CloudInput(
            "tool search",
            asking(tools=[WEATHER, {**BASH, "defer_loading": True}]),
            ("advanced-tool-use-2025-11-20",),
        ),
        CloudInput(
            "a beta of the clouds' own",
            asking(tools=[{**WEATHER, "defer_loading": True}]),
            ("tool-search-tool-2025-10-19",),
        ),
        CloudInput(
            "a turn with its own effort",
            asking([*said(), {**SYSTEM_TURN, "output_config": {"effort": "low"}}]),
            ("per-turn-control-2026-07-01",),
        ),
        CloudInput(
            "computer use",
            asking(
                tools=[{"type": "computer_20250124", "name": "computer", "display_width_px": 1, "display_height_px": 1}]
            ),
            ("computer-use-2025-01-24",),
        ),
        CloudInput("a beta nobody knows yet", asking(), ("brand-new-2027-01-01",)),
        CloudInput("a field nobody knows yet", asking(brand_new={"model": "x", "stream": [True]})),
    ]


def _counts() -> list[CloudInput]:
    def counting(name: str, betas: tuple[str, ...] = (), **fields: Any) -> CloudInput:
        body = {"model": OPUS, "messages": said(), **fields}
        return CloudInput(f"count: {name}", body, betas, counts=True)

    return [
        counting("one word"),
        counting("an older model", model=HAIKU),
        counting("system and tools", system="Terse.", tools=[WEATHER]),
        counting("an image and a PDF", messages=said([IMAGE, DOCUMENT])),
        counting("thinking", messages=THOUGHT_TURNS, thinking={"type": "adaptive"}),
        counting("tool results", messages=TOOL_TURNS, tools=[WEATHER]),
        counting("unicode", messages=said("你好 👩‍👩‍👧‍👦 é")),
        counting("with a beta", ("context-1m-2025-08-07",)),
        counting("a cache marker", system=[{"type": "text", "text": "Terse.", "cache_control": EPHEMERAL}]),
    ]


def cloud_inputs() -> list[CloudInput]:
    """All of them; every third of those that are not streamed comes streamed as well."""
    asked = [*_plain(), *_unicode(), *_system(), *_tools(), *_thinking(), *_caching(), *_media(), *_betas()]
    again = [each.streamed() for each in asked[::3] if "stream" not in each.body]
    return [*asked, *again, *_counts()]
