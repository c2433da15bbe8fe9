"""Models of the demo provider, what each accepts, and the pages of `GET /v1/models`.

Pure. Rules per model come from docs/providers/anthropic.md (thinking modes, system turns, smallest cacheable
prefix). Names that are not listed are served too, with the rules of the newest models but visible thinking:
the demo also stands for providers with other names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ccr_demo.errors import ApiError


@dataclass(frozen=True, slots=True)
class Model:
    """One model and the requests that it accepts."""

    id: str
    display_name: str
    created_at: str  # RFC 3339
    line: str
    max_input_tokens: int = 1_000_000
    max_tokens: int = 128_000
    thinking_modes: frozenset[str] = frozenset({"adaptive", "disabled"})
    omits_thinking_by_default: bool = True  # `thinking.display`: omitted from Opus 4.7 on
    accepts_system_turns: bool = True  # from 4.8 on
    accepts_prefill: bool = False  # up to 4.5
    min_cacheable_tokens: int = 1024

    def as_json(self) -> dict[str, Any]:
        """The object of `/v1/models`."""
        return {
            "type": "model",
            "id": self.id,
            "display_name": self.display_name,
            "created_at": self.created_at,
            "max_input_tokens": self.max_input_tokens,
            "max_tokens": self.max_tokens,
            "line": self.line,
            "lifecycle": "active",
            "deprecated_at": None,
            "retires_at": None,
        }


_ALL = frozenset({"enabled", "adaptive", "disabled"})
_OLD = frozenset({"enabled", "disabled"})
_ALWAYS = frozenset({"adaptive"})

MODELS: tuple[Model, ...] = (
    Model("claude-opus-5-5", "Claude Opus 5.5", "2026-10-20T00:00:00Z", "opus", thinking_modes=_ALWAYS),
    Model(
        "claude-sonnet-5-5",
        "Claude Sonnet 5.5",
        "2026-10-20T00:00:00Z",
        "sonnet",
        thinking_modes=frozenset({"adaptive", "between_tools"}),
    ),
    Model("claude-haiku-5-5", "Claude Haiku 5.5", "2026-10-01T00:00:00Z", "haiku", max_input_tokens=200_000),
    Model(
        "claude-fable-5-1",
        "Claude Fable 5.1",
        "2026-09-01T00:00:00Z",
        "fable",
        thinking_modes=_ALWAYS,
        min_cacheable_tokens=512,
    ),
    Model("claude-opus-5", "Claude Opus 5", "2026-07-01T00:00:00Z", "opus", min_cacheable_tokens=512),
    Model("claude-sonnet-5", "Claude Sonnet 5", "2026-06-01T00:00:00Z", "sonnet"),
    Model("claude-opus-4-8", "Claude Opus 4.8", "2026-05-01T00:00:00Z", "opus"),
    Model(
        "claude-opus-4-7",
        "Claude Opus 4.7",
        "2026-04-01T00:00:00Z",
        "opus",
        accepts_system_turns=False,
        min_cacheable_tokens=2048,
    ),
    Model(
        "claude-opus-4-6",
        "Claude Opus 4.6",
        "2026-02-05T00:00:00Z",
        "opus",
        thinking_modes=_ALL,
        omits_thinking_by_default=False,
        accepts_system_turns=False,
        min_cacheable_tokens=4096,
    ),
    Model(
        "claude-sonnet-4-6",
        "Claude Sonnet 4.6",
        "2026-02-17T00:00:00Z",
        "sonnet",
        thinking_modes=_ALL,
        omits_thinking_by_default=False,
        accepts_system_turns=False,
    ),
    Model(
        "claude-opus-4-5-20251101",
        "Claude Opus 4.5",
        "2025-11-24T00:00:00Z",
        "opus",
        max_input_tokens=200_000,
        max_tokens=64_000,
        thinking_modes=_OLD,
        omits_thinking_by_default=False,
        accepts_system_turns=False,
        accepts_prefill=True,
        min_cacheable_tokens=4096,
    ),
    Model(
        "claude-sonnet-4-5-20250929",
        "Claude Sonnet 4.5",
        "2025-09-29T00:00:00Z",
        "sonnet",
        max_tokens=64_000,
        thinking_modes=_OLD,
        omits_thinking_by_default=False,
        accepts_system_turns=False,
        accepts_prefill=True,
    ),
    Model(
        "claude-haiku-4-5-20251001",
        "Claude Haiku 4.5",
        "2025-10-15T00:00:00Z",
        "haiku",
        max_input_tokens=200_000,
        max_tokens=64_000,
        thinking_modes=_OLD,
        omits_thinking_by_default=False,
        accepts_system_turns=False,
        accepts_prefill=True,
        min_cacheable_tokens=4096,
    ),
)

_ALIASES: Mapping[str, str] = {
    "claude-opus-4-5": "claude-opus-4-5-20251101",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The models that one demo provider serves; `is_strict` makes every other name a 404."""

    models: tuple[Model, ...] = MODELS
    is_strict: bool = False
    _by_id: dict[str, Model] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        by_id = {model.id: model for model in self.models}
        by_id |= {alias: by_id[target] for alias, target in _ALIASES.items() if target in by_id}
        object.__setattr__(self, "_by_id", by_id)

    @classmethod
    def of_ids(cls, ids: Sequence[str], is_strict: bool) -> "Catalogue":
        """The listed models; names that the demo does not know get the rules of unlisted ones."""
        known = {model.id: model for model in MODELS}
        return cls(tuple(known.get(each) or unlisted(each) for each in ids) if ids else MODELS, is_strict)

    def for_request(self, name: str) -> Model:
        """The model that answers. Raises ApiError (404) for an unknown name if the catalogue is strict."""
        if name in self._by_id:
            return self._by_id[name]
        if self.is_strict:
            raise ApiError(404, f"model: {name}")
        return unlisted(name)

    def get(self, name: str) -> Model:
        """The listed model. Raises ApiError (404)."""
        if name not in self._by_id:
            raise ApiError(404, f"model: {name}")
        return self._by_id[name]


def unlisted(name: str) -> Model:
    """Rules for a name outside the list: everything goes, thinking is shown, a small cacheable prefix."""
    return Model(
        name,
        name,
        "2026-01-01T00:00:00Z",
        "sonnet",
        thinking_modes=_ALL | {"between_tools"},
        omits_thinking_by_default=False,
        accepts_prefill=True,
    )


def page(items: Sequence[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """One page by `limit` (1 to 1000, default 20), `after_id` and `before_id`. Raises ApiError (400)."""
    limit = read_limit(query)
    ids = [item["id"] for item in items]
    start, stop = 0, len(items)
    if "after_id" in query:
        start = _position(ids, query["after_id"], "after_id") + 1
        has_more = start + limit < stop
        stop = min(stop, start + limit)
    elif "before_id" in query:
        stop = _position(ids, query["before_id"], "before_id")
        has_more = stop - limit > 0
        start = max(0, stop - limit)
    else:
        has_more = limit < stop
        stop = min(stop, limit)
    data = list(items[start:stop])
    return {
        "data": data,
        "has_more": has_more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def read_limit(query: Mapping[str, str]) -> int:
    """The page size that was asked for: 1 to 1000, 20 by default. Raises ApiError (400)."""
    text = query.get("limit", "20")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise ApiError(400, "limit: Input should be between 1 and 1000")
    return int(text)


def _position(ids: Sequence[str], wanted: str, name: str) -> int:
    if wanted not in ids:
        raise ApiError(400, f"{name}: Invalid cursor")
    return ids.index(wanted)
