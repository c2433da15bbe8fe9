"""How a configuration is shown: as YAML without secrets, and as a hash.

Pure.
"""

from __future__ import annotations

import hashlib
import json
import re

import yaml

from ccr_control.core.completion import completed
from ccr_control.core.document import Tree, looks_secret
from ccr_control.core.schema import Config
from ccr_control.core.secret import SHOWN, Secret

_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|pass|credential|sign|session", re.IGNORECASE)
_SHORTEST_HIDDEN = 6  # shorter secrets are no secrets, and hiding their every occurrence would hide the rest, too


def config_hash(config: Config) -> str:
    """SHA-256, in hex, of the effective configuration. Secrets and certificates count by their own hashes."""
    full = completed(config)
    shown = full.model_dump(mode="json", context={"secret": lambda secret: secret.sha256().hex()})
    shown["certificates"] = [provider.ca_file.text if provider.ca_file else "" for provider in full.providers]
    return hashlib.sha256(json.dumps(shown, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def redacted_yaml(config: Config) -> str:
    """The effective configuration, defaults included, "***" for every secret and whatever holds one."""
    full = completed(config)
    shown = full.model_dump(mode="json", exclude_none=True)
    for provider, entry in zip(full.providers, shown["providers"], strict=True):
        entry["headers"] = {name: _header(name, value) for name, value in provider.headers.items()}
    hidden = without_secrets(shown, all_secrets(full))
    return yaml.dump(hidden, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=120)


def all_secrets(config: Config) -> frozenset[str]:
    """Every secret of a configuration that is long enough to be one."""
    secrets = {secret for provider in config.providers for key in provider.keys for secret in key.secrets()}
    secrets |= {client.key.reveal() for client in (config.server.auth.keys if config.server.auth else ())}
    return frozenset(secret for secret in secrets if len(secret) >= _SHORTEST_HIDDEN)


def _header(name: str, value: Secret) -> str:
    return SHOWN if _SECRET_HEADER.search(name) or looks_secret(value.reveal()) else value.reveal()


def without_secrets(tree: Tree, secrets: frozenset[str]) -> Tree:
    """The tree, without those that were also written into fields which are shown."""
    if isinstance(tree, str):
        return SHOWN if any(secret in tree for secret in secrets) else tree
    if isinstance(tree, list):
        return [without_secrets(item, secrets) for item in tree]
    if isinstance(tree, dict):
        return {without_secrets(key, secrets): without_secrets(item, secrets) for key, item in tree.items()}
    return tree
