"""What was changed at run time, on top of the configuration.

Pure. One entry for each changed field, by resource:

    providers/NAME      state (enabled, draining, disabled), weight, priority
    keys/PROVIDER/LABEL state (active, deprecated, disabled), weight, priority, secret; of an added key also added, scope and limits
    routes/NAME         strategy
    routing             strategy, of all routes that do not say it themselves

An entry that says what the configuration says anyway is not kept. One about something that the configuration has no more rests
until it is back. `applied` gives for every overlay a configuration that compiles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Literal, TypeAlias, cast, get_args

from ccr_control.core.crosscheck import accepts_subscription
from ccr_control.core.provider_schema import KeyConfig, KeyState, ProviderConfig
from ccr_control.core.schema import AuthConfig, Config, RouteConfig, Strategy
from ccr_control.core.secret import SHOWN, Secret

ProviderState = Literal["enabled", "draining", "disabled"]
Origin = Literal["config", "changed", "added"]
Value: TypeAlias = str | Secret
Place: TypeAlias = tuple[str, str]  # resource, field

ALL_ROUTES: Final = "routing"
ADDED: Final = "added"  # the field that makes a key one that was added here
LIMITS: Final = ("rpm_limit", "tpm_limit", "itpm_limit", "otpm_limit")

_SHOWN_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One changed field."""

    value: Value
    changed_by: str
    changed_at_s: float  # since 1970


@dataclass(frozen=True, slots=True)
class Overlay:
    """All changes, in the order in which they were made."""

    entries: Mapping[Place, Entry] = field(default_factory=dict)

    def of(self, resource: str) -> dict[str, Value]:
        """The changed fields of a resource."""
        return {name: entry.value for (about, name), entry in self.entries.items() if about == resource}

    def said(self, resource: str, name: str) -> str | None:
        """What a field was changed to; None: it was not, or is a secret."""
        entry = self.entries.get((resource, name))
        return entry.value if entry is not None and isinstance(entry.value, str) else None

    def with_changed(self, resource: str, values: Mapping[str, Value | None], by: str, at_s: float) -> Overlay:
        """The overlay with fields of a resource changed; None: as the configuration has it."""
        entries = dict(self.entries)
        for name, value in values.items():
            before = entries.get((resource, name))
            if value is None:
                entries.pop((resource, name), None)
            elif before is None or before.value != value:
                entries[resource, name] = Entry(value, by, at_s)
        return Overlay(entries)

    def without(self, resource: str) -> Overlay:
        """The overlay without what is about a resource, or about what is below it. Empty: without anything."""
        return Overlay({place: entry for place, entry in self.entries.items() if not is_about(place[0], resource)})


def is_about(resource: str, asked: str) -> bool:
    """Whether a resource is the one that was asked for, or below it. Everything is below an empty one."""
    return not asked or resource == asked or resource.startswith(f"{asked}/")


def provider_resource(name: str) -> str:
    """How a provider is called in entries and events."""
    return f"providers/{name}"


def key_resource(provider: str, label: str) -> str:
    """How a key is."""
    return f"keys/{provider}/{label}"


def strategy_resource(route: str) -> str:
    """How a route is, or (empty) all that do not say their strategy themselves."""
    return f"routes/{route}" if route else ALL_ROUTES


def applied(config: Config, overlay: Overlay) -> Config:
    """A completed configuration with the changes worked in.

    A provider that is left without any credential is disabled: nobody could use it.
    """
    if not overlay.entries:
        return config
    auth = config.server.auth
    strategy = overlay.said(ALL_ROUTES, "strategy") or config.routing.strategy
    routing = config.routing.model_copy(
        update={"strategy": strategy, "routes": tuple(_route(route, overlay) for route in config.routing.routes)}
    )
    providers = tuple(_provider(provider, overlay, auth) for provider in config.providers)
    return config.model_copy(update={"providers": providers, "routing": routing})


def _route(route: RouteConfig, overlay: Overlay) -> RouteConfig:
    strategy = overlay.said(strategy_resource(route.name or ""), "strategy")
    return route if strategy is None else route.model_copy(update={"strategy": strategy})


def _provider(provider: ProviderConfig, overlay: Overlay, auth: AuthConfig | None) -> ProviderConfig:
    said = overlay.of(provider_resource(provider.name))
    update: dict[str, object] = {name: int(str(said[name])) for name in ("weight", "priority") if name in said}
    if "state" in said:
        update |= {"enabled": said["state"] != "disabled", "draining": said["state"] == "draining"}
    keys = (*(_key(provider.name, key, overlay) for key in provider.keys), *_added(provider, overlay))
    changed = provider.model_copy(update={**update, "keys": keys})
    if changed.enabled and not _has_credential(changed, auth):
        return changed.model_copy(update={"enabled": False})
    return changed


def _key(provider: str, key: KeyConfig, overlay: Overlay) -> KeyConfig:
    said = overlay.of(key_resource(provider, key.label or ""))
    if not said or ADDED in said:  # an added key whose label the configuration has taken rests
        return key
    return key.model_copy(update=_key_update(said))


def _key_update(said: Mapping[str, Value]) -> dict[str, object]:
    update: dict[str, object] = {}
    for name, value in said.items():
        if name == "secret" and isinstance(value, Secret):
            update["key"] = value
        elif name in ("weight", "priority", *LIMITS):
            update[name] = int(str(value))
        elif name in ("state", "scope"):
            update[name] = str(value)
    return update


def _added(provider: ProviderConfig, overlay: Overlay) -> Iterator[KeyConfig]:
    """Added keys rest while the configuration has their label, or says that the provider gets none."""
    if provider.auth_style == "none":
        return
    taken = {key.label for key in provider.keys}
    for label in added_labels(provider.name, overlay):
        said = overlay.of(key_resource(provider.name, label))
        if label not in taken and isinstance(said.get("secret"), Secret):
            yield _blank().model_copy(update={"label": label, **_key_update(said)})


@cache
def _blank() -> KeyConfig:
    """Made when it is first wanted: it makes the type ready, which takes a while."""
    return KeyConfig()


def added_labels(provider: str, overlay: Overlay) -> list[str]:
    """Labels of the keys that were added to a provider, in order."""
    begin = key_resource(provider, "")
    return [about.removeprefix(begin) for about, name in overlay.entries if name == ADDED and about.startswith(begin)]


def _has_credential(provider: ProviderConfig, auth: AuthConfig | None) -> bool:
    has_key = any(key.state != "disabled" for key in provider.keys)
    return has_key or provider.auth_style in ("none", None) or accepts_subscription(provider, auth)


def provider_state(provider: ProviderConfig, overlay: Overlay) -> ProviderState:
    """Whether requests go to a provider, as far as people decide it; `provider` is the configuration's."""
    said = overlay.said(provider_resource(provider.name), "state")
    return cast("ProviderState", said) if said in get_args(ProviderState) else configured_state(provider)


def configured_state(provider: ProviderConfig) -> ProviderState:
    """The same as the configuration says it."""
    if not provider.enabled:
        return "disabled"
    return "draining" if provider.draining else "enabled"


def key_origin(provider: ProviderConfig, label: str, overlay: Overlay) -> Origin:
    """Where a key comes from; `provider` is the configuration's."""
    said = overlay.of(key_resource(provider.name, label))
    if any(key.label == label for key in provider.keys):
        return "changed" if said and ADDED not in said else "config"
    return "added"


def provider_view(provider: ProviderConfig, state: ProviderState) -> dict[str, object]:
    """What of an effective provider can be changed, for events and etags."""
    return {"state": state, "weight": provider.weight, "priority": provider.priority}


def key_view(key: KeyConfig) -> dict[str, object]:
    """What of an effective key can be changed, without its secret."""
    view: dict[str, object] = {"state": key.state, "weight": key.weight, "priority": key.priority}
    view |= {name: value for name in ("scope", *LIMITS) if (value := getattr(key, name)) is not None}
    return view | {"fingerprint": shown_fingerprint(key)}


def shown_fingerprint(key: KeyConfig) -> str:
    """The first characters of the SHA-256 of a key's secret, in hex; empty for a credential that has to be found."""
    return key.key.sha256().hex()[:_SHOWN_DIGITS] if key.key is not None else ""


def etag(name: str, view: Mapping[str, object]) -> str:
    """Names a state: the same again if everything that can be changed is as it was."""
    text = json.dumps([name, dict(view)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_SHOWN_DIGITS]


def configured(config: Config, resource: str, name: str) -> str:
    """What the configuration says of a field that was changed; empty: nothing. Never a secret."""
    kind, _, rest = resource.partition("/")
    if kind == ALL_ROUTES:
        return config.routing.strategy
    if kind == "routes":
        return next((route.strategy or "" for route in config.routing.routes if route.name == rest), "")
    provider_name, _, label = rest.partition("/")
    provider = next((one for one in config.providers if one.name == provider_name), None)
    if provider is None:
        return ""
    if kind == "providers":
        return configured_state(provider) if name == "state" else _written(getattr(provider, name, None))
    key = next((one for one in provider.keys if one.label == label), None)
    if key is None:
        return ""
    return shown_fingerprint(key) if name == "secret" else _written(getattr(key, name, None))


def _written(value: object) -> str:
    return "" if value is None else str(value)


def shown(value: Value) -> str:
    """A changed value for people: of a secret its fingerprint."""
    return f"{SHOWN} ({value.sha256().hex()[:_SHOWN_DIGITS]})" if isinstance(value, Secret) else value


def is_strategy(name: str) -> bool:
    """Whether a word names a strategy."""
    return name in get_args(Strategy)


def is_key_state(name: str) -> bool:
    """Whether a word names a state of a key."""
    return name in get_args(KeyState)
