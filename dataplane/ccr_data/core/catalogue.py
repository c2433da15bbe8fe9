"""`GET /v1/models` and `GET /v1/models/{id}`: the models of all providers, in Anthropic's list shape."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec

from ccr_data.core.errors import BadRequest, NoSuchModel
from ccr_data.core.snapshot import Model, Snapshot

DEFAULT_LIMIT = 20  # Anthropic's (docs/providers/anthropic.md, models)
MAX_LIMIT = 1000
_EPOCH = "1970-01-01T00:00:00Z"


def models_of(snapshot: Snapshot) -> list[Model]:
    """Every model that an enabled provider lists and some route leads to, in the order of the configuration, each once."""
    seen: dict[str, Model] = {}
    for provider in snapshot.providers.values():
        if provider.is_enabled:
            for model in provider.models:
                seen.setdefault(model.id, model)
    return list(seen.values())


def listing(snapshot: Snapshot, query: str) -> bytes:
    """A page of the list as JSON. Raises BadRequest for an odd `limit`, or a cursor that is not in the list."""
    asked = parse_qs(query, keep_blank_values=True)
    limit = _limit(asked.get("limit", [str(DEFAULT_LIMIT)])[-1])
    models = models_of(snapshot)
    after, before = asked.get("after_id"), asked.get("before_id")
    if after and before:
        raise BadRequest("only one of after_id and before_id can be given")
    if after:
        rest = models[_place(models, after[-1], "after_id") + 1 :]
        page, has_more = rest[:limit], len(rest) > limit
    elif before:
        rest = models[: _place(models, before[-1], "before_id")]
        page, has_more = rest[-limit:], len(rest) > limit
    else:
        page, has_more = models[:limit], len(models) > limit
    return msgspec.json.encode(
        {
            "data": [_shown(model) for model in page],
            "has_more": has_more,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
    )


def one(snapshot: Snapshot, model_id: str) -> bytes:
    """One model as JSON. Raises NoSuchModel."""
    for model in models_of(snapshot):
        if model.id == model_id:
            return msgspec.json.encode(_shown(model))
    raise NoSuchModel(f"model: {model_id}")


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_LIMIT:
        raise BadRequest(f"limit: must be a number from 1 to {MAX_LIMIT}")
    return int(text)


def _place(models: list[Model], model_id: str, name: str) -> int:
    for place, model in enumerate(models):
        if model.id == model_id:
            return place
    raise BadRequest(f"{name}: there is no model {model_id}")


def _shown(model: Model) -> dict[str, str]:
    created_at = model.created_at or _EPOCH
    return {"type": "model", "id": model.id, "display_name": model.display_name or model.id, "created_at": created_at}
