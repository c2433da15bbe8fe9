"""A configuration's text with the changes at run time worked in, for people to put into their file.

Pure. No secret is in it: one that was changed at run time, or is written out in the text, becomes a variable to be set. Comments are
not kept.
"""

from __future__ import annotations

import copy
import re

import yaml

from ccr_control.core.document import Document, Tree, looks_secret
from ccr_control.core.overlay import ADDED, ALL_ROUTES, LIMITS, Overlay, added_labels, key_resource, provider_resource
from ccr_control.core.provider_schema import ProviderConfig
from ccr_control.core.schema import Config
from ccr_control.core.secret import SHOWN, Secret
from ccr_control.core.show import all_secrets

_HEAD = """\
# The configuration with what was changed at run time worked in. Comments of the file are not kept.
"""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WITH_DEFAULT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*):-.*\}", re.DOTALL)
_SECRET_FIELDS = frozenset(
    ("key", "access_key_id", "secret_access_key", "session_token", "client_secret")  # of keys, clients, clouds
)


def merged(document: Document, config: Config, overlay: Overlay) -> str:
    """The text, as YAML. `document` is the text as it was decoded, `config` what became of it."""
    tree: dict[str, Tree] = copy.deepcopy(document.data)
    routing = tree.get("routing")
    if (strategy := overlay.said(ALL_ROUTES, "strategy")) is not None:
        routing = tree["routing"] = {**(routing or {}), "strategy": strategy}
    for entry, route in zip((routing or {}).get("routes") or (), config.routing.routes, strict=False):
        if (strategy := overlay.said(f"routes/{route.name}", "strategy")) is not None:
            entry["strategy"] = strategy
    for entry, provider in zip(tree["providers"], config.providers, strict=False):
        _change_provider(entry, provider, overlay)
    variables: dict[str, str] = {}
    hidden = _hidden(tree, all_secrets(config), (), variables)
    needed = "".join(f"# Set {name}: {why}.\n" for name, why in variables.items())
    text = yaml.dump(hidden, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=120)
    return f"{_HEAD}{needed}{text}"


def _change_provider(entry: dict[str, Tree], provider: ProviderConfig, overlay: Overlay) -> None:
    name, labels = provider.name, [key.label or "" for key in provider.keys]
    said = overlay.of(provider_resource(name))
    for field in ("weight", "priority"):
        if field in said:
            entry[field] = int(str(said[field]))
    if "state" in said:
        entry["enabled"] = said["state"] != "disabled"
        entry["draining"] = said["state"] == "draining"
    keys = [_as_mapping(key) for key in entry.get("keys") or ()]
    for key, label in zip(keys, labels, strict=False):
        if overlay.said(key_resource(name, label), ADDED) is None:  # else it rests: the file has taken its label
            _change_key(key, name, label, overlay)
    for label in added_labels(name, overlay):
        if label not in labels and provider.auth_style != "none":
            added: dict[str, Tree] = {"label": label}
            _change_key(added, name, label, overlay)
            keys.append(added)
    if keys:
        entry["keys"] = keys


def _as_mapping(key: Tree) -> dict[str, Tree]:
    return dict(key) if isinstance(key, dict) else {"key": key}


def _change_key(key: dict[str, Tree], provider: str, label: str, overlay: Overlay) -> None:
    said = overlay.of(key_resource(provider, label))
    if said and "label" not in key:
        key["label"] = label
    for field, value in said.items():
        if isinstance(value, Secret):
            key["key"] = value
        elif field in ("weight", "priority", *LIMITS):
            key[field] = int(value)
        elif field in ("state", "scope"):
            key[field] = value


def _hidden(tree: Tree, secrets: frozenset[str], path: tuple[str, ...], variables: dict[str, str]) -> Tree:
    """The tree without secrets; what has to be set is added to `variables`."""
    if isinstance(tree, dict):
        name = str(tree.get("name") or tree.get("label") or "")
        inside = (*path, name) if name else path
        return {key: _hidden(value, secrets, (*inside, str(key)), variables) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_hidden(item, secrets, path, variables) for item in tree]
    if isinstance(tree, Secret):
        return _variable(path, "a key that was set at run time", variables)
    if not isinstance(tree, str):
        return tree
    is_secret = path[-1:] and (path[-1] in _SECRET_FIELDS or (path[-2:-1] == ("headers",) and "${" not in tree))
    if is_secret and not _VARIABLE.fullmatch(tree):
        if path[-2:-1] == ("headers",) and not looks_secret(tree) and tree not in secrets:
            return tree
        if (default := _WITH_DEFAULT.fullmatch(tree)) is not None:
            return f"${{{default[1]}}}"
        return _variable(path, "it was written out in the file", variables)
    return SHOWN if any(secret in tree for secret in secrets) else tree


def _variable(path: tuple[str, ...], why: str, variables: dict[str, str]) -> str:
    words = [word for word in path if word not in ("providers", "keys", "server", "auth")]
    name = re.sub(r"[^A-Z0-9]+", "_", "_".join(("CCR", *words)).upper()).strip("_")
    variables.setdefault(name, why)
    return f"${{{name}}}"
