"""From LiteLLM: `model_list`, whose entries of one name share its requests, and what the router is set to.

Pure.
"""

from __future__ import annotations

import re
from typing import Any

from ccr_control.core.import_router import known_place, plain_name
from ccr_control.core.importing import Draft

_KINDS: dict[str, dict[str, str]] = {
    "anthropic": {"type": "anthropic"},
    "bedrock": {"type": "bedrock"},
    "vertex_ai": {"type": "vertex"},
    "azure_ai": {"type": "azure"},
    "ollama": {"type": "ollama"},
    "ollama_chat": {"type": "ollama"},
    "deepseek": {"type": "anthropic-compatible", "preset": "deepseek"},
    "openrouter": {"type": "anthropic-compatible", "preset": "openrouter"},
    "moonshot": {"type": "anthropic-compatible", "preset": "moonshot"},
    "minimax": {"type": "anthropic-compatible", "preset": "minimax"},
    "zai": {"type": "zai"},
    "hosted_vllm": {"type": "anthropic-compatible", "preset": "vllm"},
    "lm_studio": {"type": "anthropic-compatible", "preset": "lm-studio"},
}
_STRATEGIES = {
    "simple-shuffle": "simple-shuffle",
    "least-busy": "least-loaded",
    "latency-based-routing": "latency-based",
    "cost-based-routing": "cost-based",
    "usage-based-routing": "least-loaded",
    "usage-based-routing-v2": "least-loaded",
}
_PLACES = {
    "aws_region_name": "region",
    "vertex_project": "project",
    "vertex_location": "location",
}
_LIMITS = {"rpm": "rpm_limit", "tpm": "tpm_limit"}
_BARE_ID = re.compile(
    r"^anthropic\.(claude-.*?)(-v\d+(:\d+)?)?$"
)  # at Bedrock; the relay finds the id that can be called
_TAKEN = {"model", "api_key", "api_base", "weight", "order", *_PLACES, *_LIMITS}


def carry(tree: dict[str, Any], draft: Draft) -> None:
    """Take over what fits."""
    routes: dict[str, dict[str, Any]] = {}
    for index, entry in enumerate(tree.get("model_list") or ()):
        path = f"model_list[{index}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("litellm_params"), dict):
            draft.lose(path, "has no litellm_params")
            continue
        target = _carry_target(entry["litellm_params"], f"{path}.litellm_params", draft)
        name = str(entry.get("model_name") or "")
        if target is not None and name:
            route = routes.setdefault(name, {"match": {"model": name}, "to": []})
            if target not in route["to"]:
                route["to"].append(target)
    draft.routes = list(routes.values())
    _carry_settings(tree, draft)


def _carry_target(params: dict[str, Any], path: str, draft: Draft) -> dict[str, Any] | None:
    kind, _, model = str(params.get("model", "")).partition("/")
    if not model:
        kind, model = ("anthropic", kind) if kind.startswith("claude") else ("openai", kind)
    place = _KINDS.get(kind)
    if place is None and "api_base" in params:
        place = known_place(str(params["api_base"]))
    if place is None:
        draft.lose(path, f"{kind} is not known to speak the Anthropic API")
        return None
    model = _BARE_ID.sub(r"\1", model.removeprefix("converse/").removeprefix("invoke/"))
    provider = _provider_of(kind, place, params, draft)
    if key := params.get("api_key"):
        _add_key(provider, key, params, draft)
    for name in params:
        if name not in _TAKEN:
            draft.lose(f"{path}.{name}", "has no counterpart here")
    target: dict[str, Any] = {"provider": provider["name"], "model": model}
    if "weight" in params:
        target["weight"] = params["weight"]
    if "order" in params:
        target["priority"] = params["order"]
    return target


def _provider_of(kind: str, place: dict[str, str], params: dict[str, Any], draft: Draft) -> dict[str, Any]:
    """The provider of an entry: the one that is there already, or another one."""
    wanted: dict[str, Any] = dict(place)
    for theirs, ours in _PLACES.items():
        if theirs in params:
            wanted[ours] = params[theirs]
    if "api_base" in params and "base_url" not in wanted:
        wanted["base_url"] = str(params["api_base"]).rstrip("/").removesuffix("/v1")
    for one in draft.providers:
        if {name: value for name, value in one.items() if name not in ("name", "keys")} == wanted:
            return one
    names = {one["name"] for one in draft.providers}
    name = plain_name(kind)
    numbered = (f"{name}-{number}" for number in range(2, len(names) + 3))
    made = {"name": name if name not in names else next(one for one in numbered if one not in names), **wanted}
    draft.providers.append(made)
    return made


def _add_key(provider: dict[str, Any], written: Any, params: dict[str, Any], draft: Draft) -> None:
    keys = provider.setdefault("keys", [])
    name = provider["name"]
    secret = draft.secret(written, f"CCR_{name}_KEY_{len(keys) + 1}", f"a key of {name}")
    if any(key["key"] == secret for key in keys):
        return
    limits = {ours: params[theirs] for theirs, ours in _LIMITS.items() if theirs in params}
    keys.append({"key": secret, **limits})


def _carry_settings(tree: dict[str, Any], draft: Draft) -> None:
    general, router = dict(tree.get("general_settings") or {}), dict(tree.get("router_settings") or {})
    if key := general.pop("master_key", None):
        key = draft.secret(key, "CCR_CLIENT_KEY", "the relay key of clients (master_key)")
        draft.server["auth"] = {"keys": [{"name": "master", "key": key}]}
    if strategy := router.pop("routing_strategy", None):
        if strategy in _STRATEGIES:
            draft.routing["strategy"] = _STRATEGIES[strategy]
        else:
            draft.lose("router_settings.routing_strategy", f"{strategy} has no counterpart here")
    if retries := router.pop("num_retries", None):
        draft.routing["max_attempts"] = int(retries) + 1 if str(retries).isdigit() else retries
    for section, left in (("general_settings", general), ("router_settings", router)):
        for name in left:
            draft.lose(f"{section}.{name}", "has no counterpart here")
    for name in tree:
        if name not in ("model_list", "general_settings", "router_settings"):
            draft.lose(name, "has no counterpart here")
