"""Whatever is changed at run time, on whatever configuration: nodes take what comes of it, and it can be taken back."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ccr_control.core.compile import check, compile_snapshot
from ccr_control.core.config import load
from ccr_control.core.decode import decode
from ccr_control.core.difference import difference
from ccr_control.core.merging import merged
from ccr_control.core.overlay import (
    ADDED,
    ALL_ROUTES,
    Overlay,
    applied,
    configured,
    etag,
    key_resource,
    key_view,
    provider_resource,
    provider_state,
    provider_view,
    shown,
    strategy_resource,
)
from ccr_control.core.schema import Config
from ccr_control.core.secret import Secret
from hypothesis import example, given
from hypothesis import strategies as st

SECRET = "sk-secret-of-run-time-"
TEXTS = [
    """\
version: 1
server: {auth: {keys: [{name: a, key: written-out-client-key}], allow_subscription: true}}
routing: {routes: [{name: haiku, match: {model: "claude-haiku-*"}, to: [{provider: zai}]}, {to: [{provider: local}]}]}
providers:
  - {name: anthropic, type: anthropic, keys: [{label: a, key: written-out-key-a}, {key: written-out-key-2}]}
  - {name: zai, type: zai, enabled: false, keys: [{label: a, key: "${ZAI_KEY:-written-out-default}"}]}
  - {name: local, type: ollama}
""",
    """\
version: 1
providers:
  - {name: zai, type: zai, keys: [{label: a, key: written-out-key-a, weight: 4}, {label: b, key: "${ZAI_KEY}", state: disabled}]}
""",
    """\
version: 1
routing: {strategy: failover, routes: [{name: haiku, match: {thinking: true}, to: [{provider: local, weight: 3}]}]}
providers:
  - {name: local, type: ollama, draining: true, weight: 9}
  - {name: anthropic, type: anthropic, keys: [{label: b, key: "${ANTHROPIC_KEY}", scope: org}]}
""",
]
ENV = {"ZAI_KEY": "value-of-zai-key", "ANTHROPIC_KEY": "value-of-anthropic-key"}


def config_of(text: str, env: dict[str, str] = ENV) -> Config:
    return load(text, file="test", fmt="yaml", env=env).config


CONFIGS = [config_of(text) for text in TEXTS]

names = st.sampled_from(["anthropic", "zai", "local", "gone"])
labels = st.sampled_from(["a", "b", "key-2", "new"])
states = st.sampled_from(["enabled", "draining", "disabled"])
key_states = st.sampled_from(["active", "deprecated", "disabled"])
numbers = st.integers(1, 1_000_000).map(str)
strategies = st.sampled_from(["simple-shuffle", "failover", "cost-based", "model-based"])
secrets = st.integers(0, 5).map(lambda number: Secret(f"{SECRET}{number}"))

changes = st.one_of(
    st.tuples(names.map(provider_resource), st.fixed_dictionaries({}, optional={"state": states, "weight": numbers})),
    st.tuples(
        st.builds(key_resource, names, labels),
        st.fixed_dictionaries({}, optional={"state": key_states, "weight": numbers, "secret": secrets}),
    ),
    st.tuples(
        st.builds(key_resource, names, labels),
        st.fixed_dictionaries(
            {ADDED: st.just("yes"), "secret": secrets}, optional={"scope": st.just("org"), "rpm_limit": numbers}
        ),
    ),
    st.tuples(
        st.sampled_from([ALL_ROUTES, strategy_resource("haiku"), strategy_resource("gone")]),
        st.fixed_dictionaries({"strategy": strategies}),
    ),
)
overlays = st.lists(changes, max_size=12).map(
    lambda made: _over(Overlay(), made)  # in the order in which they are made
)


def _over(overlay: Overlay, made: list[tuple[str, dict[str, str]]]) -> Overlay:
    for number, (resource, values) in enumerate(made):
        overlay = overlay.with_changed(resource, values, "tester", float(number))
    return overlay


@given(st.sampled_from(CONFIGS), overlays)
def test_nodes_take_whatever_comes_of_it(config: Config, overlay: Overlay) -> None:
    """A change that nodes reject would look like one that was made."""
    effective = applied(config, overlay)
    snapshot = compile_snapshot(effective, version=1, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert check(snapshot) == []
    assert [one.name for one in effective.providers] == [one.name for one in config.providers]


@given(st.sampled_from(CONFIGS), overlays)
def test_what_people_decided_is_what_is_served(config: Config, overlay: Overlay) -> None:
    effective = applied(config, overlay)
    for said, provider in zip(config.providers, effective.providers, strict=True):
        state = provider_state(said, overlay)
        assert provider.draining is (state == "draining") or not provider.enabled
        if state == "disabled":
            assert not provider.enabled
        for key in provider.keys:
            wanted = overlay.said(key_resource(provider.name, key.label or ""), "weight")
            is_theirs = any(one.label == key.label for one in said.keys)
            is_resting = is_theirs and overlay.said(key_resource(provider.name, key.label or ""), ADDED) is not None
            assert wanted is None or is_resting or key.weight == int(wanted)


@given(st.sampled_from(CONFIGS), overlays)
def test_taking_everything_back_leaves_the_configuration(config: Config, overlay: Overlay) -> None:
    """Byte for byte: nothing is left behind."""
    resources = {resource for resource, _ in overlay.entries}
    back = overlay
    for resource in resources:
        back = back.without(resource)
    assert back == overlay.without("") == Overlay()
    assert difference(config, applied(config, back)).diff == ""


@given(st.sampled_from(CONFIGS), overlays)
def test_no_secret_is_shown(config: Config, overlay: Overlay) -> None:
    effective = applied(config, overlay)
    told = [shown(entry.value) for entry in overlay.entries.values()]
    told += [configured(config, resource, name) for resource, name in overlay.entries]
    told += [str(key_view(key)) for one in effective.providers for key in one.keys]
    told += [difference(config, effective).diff, repr(overlay)]
    for text in told:
        assert SECRET not in text
        assert "written-out" not in text
        assert "value-of" not in text


@given(st.sampled_from(CONFIGS), overlays, changes)
def test_an_etag_changes_with_what_can_be_changed(
    config: Config, overlay: Overlay, change: tuple[str, dict[str, str]]
) -> None:
    """Whoever decided upon what he saw is told if it is not that any more."""
    other = _over(overlay, [change])
    for said, one, another in zip(
        config.providers, applied(config, overlay).providers, applied(config, other).providers, strict=True
    ):
        views = [provider_view(one, provider_state(said, overlay)), provider_view(another, provider_state(said, other))]
        tags = [etag(said.name, view) for view in views]
        assert (tags[0] == tags[1]) is (views[0] == views[1])


# A key that was added before the configuration said that its provider gets none.
_IDLE_KEY = [("keys/local/a", {ADDED: "yes", "secret": Secret(SECRET)}), ("keys/local/a", {"state": "disabled"})]


@given(st.integers(0, len(TEXTS) - 1), overlays)
@example(0, _over(Overlay(), _IDLE_KEY))
@example(0, _over(Overlay(), _IDLE_KEY[:1]))
@example(0, _over(Overlay(), [("providers/zai", {"state": "enabled"}), ("keys/zai/a", {"state": "disabled"})]))
def test_the_merged_text_means_the_same(index: int, overlay: Overlay) -> None:
    """What people put into their file does what the overlay did, secrets apart; and it holds none."""
    text, config = TEXTS[index], CONFIGS[index]
    found = merged(decode(text, file="test", fmt="yaml"), config, overlay)
    assert SECRET not in found
    assert "written-out" not in found
    effective = applied(config, overlay)
    if not any(one.enabled for one in effective.providers):
        return  # a file must have one that is; at run time people may
    if any(
        not one.enabled and provider_state(said, overlay) != "disabled"
        for said, one in zip(config.providers, effective.providers, strict=True)
    ):
        return  # nor may it have one without a usable key
    variables = {name: f"set-later-{name}" for name in _variables(found)}
    again = config_of(found, {**variables, **ENV})
    for one, other in zip(effective.providers, again.providers, strict=True):
        assert (one.enabled, one.draining, one.weight) == (other.enabled, other.draining, other.weight)
        assert [(key.label, key.state, key.weight, key.scope, key.rpm_limit) for key in one.keys] == [
            (key.label, key.state, key.weight, key.scope, key.rpm_limit) for key in other.keys
        ]
    assert [route.strategy for route in again.routing.routes] == [route.strategy for route in effective.routing.routes]
    assert again.routing.strategy == effective.routing.strategy


def _variables(text: str) -> list[str]:

    return re.findall(r"\$\{(\w+)\}", text)
