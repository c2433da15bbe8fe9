"""From claude-code-router: `Providers` with OpenAI-shaped addresses, and `Router` by kind of request.

Pure. This relay speaks the Anthropic API only, so a provider is carried over if it is known to have it, too.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from ccr_control.core.importing import Draft

LONG_CONTEXT_TOKENS = 60_000

KNOWN_HOSTS: dict[str, dict[str, str]] = {
    "api.anthropic.com": {"type": "anthropic"},
    "api.deepseek.com": {"type": "anthropic-compatible", "preset": "deepseek"},
    "openrouter.ai": {"type": "anthropic-compatible", "preset": "openrouter"},
    "api.moonshot.ai": {"type": "anthropic-compatible", "preset": "moonshot"},
    "api.moonshot.cn": {"type": "anthropic-compatible", "preset": "moonshot"},
    "api.minimax.io": {"type": "anthropic-compatible", "preset": "minimax"},
    "api.minimaxi.com": {"type": "anthropic-compatible", "preset": "minimax"},
    "api.z.ai": {"type": "zai"},
    "open.bigmodel.cn": {"type": "zai"},
}
LOCAL_PORTS: dict[int, dict[str, str]] = {
    11434: {"type": "ollama"},
    1234: {"type": "anthropic-compatible", "preset": "lm-studio"},
    8000: {"type": "anthropic-compatible", "preset": "vllm"},
    8080: {"type": "anthropic-compatible", "preset": "llama-cpp"},
}
_MATCHES: dict[str, dict[str, Any]] = {
    "background": {"request_class": "background"},
    "think": {"thinking": True},
    "longContext": {},
    "image": {"images": True},
    "default": {},
}


def carry(tree: dict[str, Any], draft: Draft) -> None:
    """Take over what fits."""
    host, port = tree.get("HOST", "127.0.0.1"), tree.get("PORT")
    if port:
        draft.server["listen"] = f"{host}:{port}"
    if key := tree.get("APIKEY"):
        key = draft.secret(key, "CCR_CLIENT_KEY", "the relay key of clients (APIKEY)")
        draft.server["auth"] = {"keys": [{"name": "client", "key": key}]}
    for index, provider in enumerate(tree.get("Providers") or tree.get("providers") or ()):
        _carry_provider(provider, f"Providers[{index}]", draft)
    _carry_router(dict(tree.get("Router") or {}), draft)
    for name in tree:
        if name not in ("HOST", "PORT", "APIKEY", "Providers", "providers", "Router", "LOG", "LOG_LEVEL"):
            draft.lose(name, "has no counterpart here")


def known_place(address: str) -> dict[str, str] | None:
    """Type and preset of a provider by its address; None: it is not known to speak the Anthropic API."""
    url = urlsplit(address)
    try:
        port = url.port
    except ValueError:
        return None
    if url.hostname in ("localhost", "127.0.0.1", "::1") and port in LOCAL_PORTS:
        return {**LOCAL_PORTS[port], "base_url": f"{url.scheme}://{url.netloc}"}
    return KNOWN_HOSTS.get(url.hostname or "")


def plain_name(name: str) -> str:
    """A name as providers here are called."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-") or "provider"


def _carry_provider(provider: Any, path: str, draft: Draft) -> None:
    if not isinstance(provider, dict) or not provider.get("name"):
        draft.lose(path, "has no name")
        return
    place = known_place(str(provider.get("api_base_url", "")))
    if place is None:
        draft.lose(
            path,
            "is not known to speak the Anthropic API: if it does, add it as `anthropic-compatible` with its base_url",
        )
        return
    name = plain_name(str(provider["name"]))
    entry: dict[str, Any] = {"name": name, **place}
    if place["type"] != "ollama" and (key := provider.get("api_key")):
        entry["keys"] = [{"label": name, "key": draft.secret(key, f"CCR_{name}_KEY", f"the key of {name}")}]
    if models := provider.get("models"):
        entry["models"] = list(models)
    if provider.get("transformer"):
        draft.lose(f"{path}.transformer", "is not needed: requests reach it as Claude Code wrote them")
    draft.providers.append(entry)


def _carry_router(router: dict[str, Any], draft: Draft) -> None:
    names = {entry["name"] for entry in draft.providers}
    threshold = router.pop("longContextThreshold", LONG_CONTEXT_TOKENS)
    for kind in ("longContext", "image", "background", "think", "default"):
        said = router.pop(kind, None)
        if not said:
            continue
        provider, _, model = str(said).partition(",")
        provider = plain_name(provider)
        if provider not in names:
            draft.lose(f"Router.{kind}", f"its provider {provider} was not carried over")
            continue
        match = {"min_input_tokens": threshold} if kind == "longContext" else _MATCHES[kind]
        target = {"provider": provider, **({"model": model} if model else {})}
        name = "everything-else" if kind == "default" else kind
        draft.routes.append({"name": name, **({"match": dict(match)} if match else {}), "to": [target]})
    for kind in router:
        draft.lose(f"Router.{kind}", "has no counterpart here")
