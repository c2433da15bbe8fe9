"""From the Go program of the same name: its keys are those of this family of tools, so what fits is taken as it is.

Pure. Names and meanings are those that people know (docs/reference/config.md); what has no counterpart is said.
"""

from __future__ import annotations

from typing import Any

from ccr_control.core.importing import Draft

_TAKEN = ("control", "health")
_STRATEGIES = {
    "simple_shuffle": "simple-shuffle", "shuffle": "simple-shuffle", "random": "simple-shuffle",
    "round_robin": "round-robin", "weighted_round_robin": "weighted-round-robin", "least_loaded": "least-loaded",
    "cost_based": "cost-based", "latency_based": "latency-based", "model_based": "model-based",
}  # fmt: skip


def carry(tree: dict[str, Any], draft: Draft) -> None:
    """Take over what fits."""
    server, routing = _section(tree, "server", draft), _section(tree, "routing", draft)
    draft.server = _server(server, draft)
    draft.routes = list(routing.pop("routes", None) or ())
    if isinstance(name := routing.get("strategy"), str):
        routing["strategy"] = _STRATEGIES.get(name, name)
    draft.routing = routing
    for name in _TAKEN:
        if section := _section(tree, name, draft):
            draft.rest[name] = section
    for name in tree:
        if name not in ("version", "server", "routing", "providers", *_TAKEN):
            draft.lose(name, "has no counterpart here")
    for index, written in enumerate(tree.get("providers") or ()):
        if not isinstance(written, dict) or not written.get("name"):
            draft.lose(f"providers[{index}]", "has no name")
            continue
        draft.providers.append(_provider(dict(written), draft))


def _section(tree: dict[str, Any], name: str, draft: Draft) -> dict[str, Any]:
    found = tree.get(name)
    if found is not None and not isinstance(found, dict):
        draft.lose(name, "is no section")
        return {}
    return dict(found or {})


def _server(server: dict[str, Any], draft: Draft) -> dict[str, Any]:
    auth = dict(server.get("auth") or {})
    single = server.pop("api_key", None) or auth.pop("api_key", None)
    if single:
        auth["keys"] = [{"name": "client", "key": draft.secret(single, "CCR_CLIENT_KEY", "the relay key of clients")}]
    for index, client in enumerate(auth.get("keys") or ()):
        if isinstance(client, dict) and "key" in client:
            name = str(client.get("name", index))
            client["key"] = draft.secret(client["key"], f"CCR_CLIENT_KEY_{name}", f"the relay key of {name}")
    if auth:
        server["auth"] = auth
    return server


def _provider(provider: dict[str, Any], draft: Draft) -> dict[str, Any]:
    name = str(provider["name"]).lower()
    provider["name"] = name
    keys = []
    for index, written in enumerate(provider.get("keys") or (), 1):
        key = dict(written) if isinstance(written, dict) else {"key": written}
        label = key.get("label", f"key-{index}")
        if "key" in key:
            key["key"] = draft.secret(key["key"], f"CCR_{name}_{label}", f"the key {label} of {name}")
        keys.append(key)
    if single := provider.pop("api_key", None):
        keys.append({"key": draft.secret(single, f"CCR_{name}_KEY", f"the key of {name}")})
    if keys:
        provider["keys"] = keys
    return provider
