"""Configurations → snapshots: what cannot be seen in the golden files at a glance."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from ccr_control.core.catalogue import display_name
from ccr_control.core.compile import check, compile_snapshot
from ccr_control.core.completion import completed, filled, is_served
from ccr_control.core.config import load
from ccr_control.core.provider_schema import ProviderConfig
from ccr_rpc.v1 import snapshot_pb2 as pb

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


def snapshot(*providers: dict[str, Any], **sections: Any) -> pb.Snapshot:
    whole = {"version": 1, "server": {"auth": {"mode": "none"}}, "providers": list(providers)} | sections
    config = load(yaml.safe_dump(whole), file="f", fmt="yaml", env={}).config
    compiled = compile_snapshot(config, version=5, created_at=NOW)
    assert check(compiled) == []
    return compiled


ANTHROPIC = {"name": "a", "type": "anthropic", "keys": [{"key": "k"}]}
ZAI = {"name": "z", "type": "zai", "keys": [{"key": "k"}]}
OLLAMA = {"name": "o", "type": "ollama"}


def compatible(preset: str | None = None, **fields: Any) -> dict[str, Any]:
    known = {"preset": preset} if preset else {"base_url": "https://llm.example.com"}
    return {"name": preset or "c", "type": "anthropic-compatible", "keys": [{"key": "k"}]} | known | fields


@pytest.mark.parametrize(
    ("provider", "system_turns", "count_tokens", "documents", "batches"),
    [
        (ANTHROPIC, pb.SYSTEM_TURNS_PASS, True, True, True),
        (ZAI, pb.SYSTEM_TURNS_PASS, True, True, False),
        (OLLAMA, pb.SYSTEM_TURNS_PASS, False, False, False),
        (compatible(), pb.SYSTEM_TURNS_PASS, True, True, False),
        (compatible("minimax"), pb.SYSTEM_TURNS_FOLD, False, False, False),
        (compatible("moonshot"), pb.SYSTEM_TURNS_FOLD, False, False, False),
        (compatible("deepseek"), pb.SYSTEM_TURNS_FOLD, False, False, False),
        (compatible("openrouter"), pb.SYSTEM_TURNS_PASS, True, True, False),
        (compatible("vllm"), pb.SYSTEM_TURNS_PASS, True, False, False),
        (compatible("llama-cpp"), pb.SYSTEM_TURNS_FOLD, True, False, False),
        (compatible("lm-studio"), pb.SYSTEM_TURNS_FOLD, False, False, False),
    ],
    ids=lambda value: value.get("preset", value["type"]) if isinstance(value, dict) else "",
)
def test_each_kind_of_upstream_is_known(
    provider: dict[str, Any], system_turns: int, count_tokens: bool, documents: bool, batches: bool
) -> None:
    """What it cannot do must be known before a request is sent there."""
    traits = snapshot(provider).providers[0].traits
    assert traits.system_turns == system_turns
    assert (traits.count_tokens, traits.documents, traits.batches_and_files) == (count_tokens, documents, batches)
    assert traits.anthropic_signatures == (provider["type"] == "anthropic")


def test_what_is_said_wins_over_what_is_known() -> None:
    """Upstreams change faster than presets."""
    traits = {"count_tokens": True, "system_turns": "reject", "documents": True, "anthropic_signatures": True}
    said = snapshot(
        compatible("minimax", traits=traits, auth_style="both", base_url="https://api.minimaxi.com/anthropic")
    )
    provider = said.providers[0]
    assert provider.base_url == "https://api.minimaxi.com/anthropic"
    assert provider.auth_style == pb.AUTH_STYLE_BOTH
    assert provider.traits.system_turns == pb.SYSTEM_TURNS_REJECT
    assert provider.traits.count_tokens
    assert provider.traits.documents
    assert provider.traits.anthropic_signatures


@pytest.mark.parametrize(
    ("provider", "style"),
    [
        (ANTHROPIC, pb.AUTH_STYLE_X_API_KEY),
        (ZAI, pb.AUTH_STYLE_BEARER),
        (OLLAMA, pb.AUTH_STYLE_NONE),
        (OLLAMA | {"keys": [{"key": "k"}]}, pb.AUTH_STYLE_BEARER),
        (compatible("vllm", keys=[]), pb.AUTH_STYLE_NONE),
        (compatible("deepseek"), pb.AUTH_STYLE_X_API_KEY),
        (compatible(), pb.AUTH_STYLE_BOTH),
    ],
)
def test_a_key_is_attached_as_the_upstream_wants_it(provider: dict[str, Any], style: int) -> None:
    """And nothing is attached where there is no key."""
    assert snapshot(provider).providers[0].auth_style == style


SUBSCRIPTION = {"auth": {"mode": "none", "allow_subscription": True}}


@pytest.mark.parametrize(
    ("provider", "server", "accepts"),
    [
        (ANTHROPIC, SUBSCRIPTION, True),
        (ANTHROPIC, {"auth": {"mode": "none"}}, False),
        (ANTHROPIC | {"base_url": "https://api.anthropic.com:443/"}, SUBSCRIPTION, True),
        (ANTHROPIC | {"base_url": "https://api.anthropic.com.example.com"}, SUBSCRIPTION, False),
        (ANTHROPIC | {"base_url": "https://api.anthropic.com:8443"}, SUBSCRIPTION, False),
        (ANTHROPIC | {"base_url": "http://api.anthropic.com", "allow_private": True}, SUBSCRIPTION, False),
        (compatible(base_url="https://api.anthropic.com"), SUBSCRIPTION, False),
        (
            ANTHROPIC | {"base_url": "https://gw.example.com/a"},
            {"auth": SUBSCRIPTION["auth"] | {"subscription_origins": ["https://GW.example.com"]}},
            True,
        ),
    ],
)
def test_a_subscription_token_goes_to_its_own_origin_only(
    provider: dict[str, Any], server: dict[str, Any], accepts: bool
) -> None:
    """It is the client's own credential: sending it elsewhere would give it away."""
    assert snapshot(provider, server=server).providers[0].accepts_subscription is accepts


def served(name: str, compiled: pb.Snapshot) -> list[str]:
    """The providers the default route would ask, by the contract's rule."""
    config = {provider.name: provider for provider in compiled.providers}

    def serves(provider: pb.Provider) -> bool:
        said = ProviderConfig.model_construct(
            serves=(*provider.serves, *(f"!{pattern}" for pattern in provider.never_serves)),
            model_mapping={rule.pattern: rule.model for rule in provider.model_rules},
        )
        return is_served(said, name)

    return [one.provider for one in compiled.routes[-1].candidates if serves(config[one.provider])]


def test_without_routes_a_request_goes_where_its_model_is_served() -> None:
    """A local runtime is no candidate for claude names, nor for what another provider serves."""
    compiled = snapshot(ANTHROPIC, ZAI, OLLAMA, compatible("deepseek"), compatible("openrouter"))
    assert served("claude-opus-5", compiled) == ["a", "z", "deepseek"]
    assert served("glm-5", compiled) == ["z"]
    assert served("deepseek-flash", compiled) == ["deepseek"]
    assert served("anthropic/claude-opus-5", compiled) == ["openrouter"]
    assert served("qwen3-coder", compiled) == ["o"]


def test_a_local_runtime_serves_claude_names_if_a_mapping_says_so() -> None:
    """That is how people run Claude Code on a model of their own."""
    compiled = snapshot(OLLAMA | {"model_mapping": {"claude-haiku-*": "qwen3-coder"}})
    assert served("claude-haiku-5-5", compiled) == ["o"]
    assert served("claude-opus-5", compiled) == []


def test_configured_models_are_what_a_provider_serves() -> None:
    """A local runtime that says what it has is not asked for anything else."""
    compiled = snapshot(OLLAMA | {"models": ["a", "claude-local"]}, ZAI | {"models": ["glm-5"]})
    assert served("claude-local", compiled) == ["o"]
    assert served("b", compiled) == []
    assert served("glm-4.7", compiled) == []
    assert [model.id for model in compiled.providers[1].models] == ["glm-5"]


def test_the_list_of_models_leaves_out_what_is_not_served() -> None:
    """Claude Code's picker would offer it."""
    compiled = snapshot(ANTHROPIC | {"serves": ["claude-haiku*"]})
    assert [model.id for model in compiled.providers[0].models] == [
        "claude-haiku-5-5",
        "claude-haiku-4-5",
        "claude-haiku-4-5-20251001",
    ]


def test_names_of_mappings_and_routes_can_be_chosen_too() -> None:
    """They are names a client may say; patterns are not."""
    routes = [{"match": {"model": ["claude-quick", "quick-*"]}, "to": [{"provider": "z", "model": "glm-5-turbo"}]}]
    compiled = snapshot(
        ZAI | {"models": ["glm-5"], "model_mapping": {"sonnet": "glm-5", "x*": "y"}}, routing={"routes": routes}
    )
    listed = {model.id: model.display_name for model in compiled.providers[0].models}
    assert listed == {"glm-5": "GLM 5", "sonnet": "Sonnet", "claude-quick": "Claude Quick"}


def test_candidates_take_weight_and_priority_from_their_provider() -> None:
    """Unless the route says otherwise; 0 is a priority like any other."""
    routes = [{"to": [{"provider": "a"}, {"provider": "a", "weight": 9, "priority": 0}]}]
    compiled = snapshot(ANTHROPIC | {"weight": 3, "priority": 4}, routing={"routes": routes, "strategy": "failover"})
    weights = [(one.weight, one.priority, one.only_served) for route in compiled.routes for one in route.candidates]
    assert weights == [(3, 4, False), (9, 0, False), (3, 4, True)]
    assert {route.strategy for route in compiled.routes} == {pb.STRATEGY_FAILOVER}


def test_disabled_providers_are_known_but_not_asked_by_default() -> None:
    """They can be enabled at run time."""
    compiled = snapshot(ANTHROPIC, ZAI | {"enabled": False})
    assert [provider.enabled for provider in compiled.providers] == [True, False]
    assert [one.provider for one in compiled.routes[-1].candidates] == ["a"]


def test_completing_twice_changes_nothing() -> None:
    """The compiler completes what may be complete already."""
    whole = {"version": 1, "providers": [ANTHROPIC, OLLAMA | {"models": ["m"]}, ZAI, {"name": "p", "type": "ollama"}]}
    config = load(yaml.safe_dump(whole), file="f", fmt="yaml", env={}).config
    assert completed(config) == config
    assert [filled(provider) for provider in config.providers] == list(config.providers)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("claude-opus-5-5", "Claude Opus 5.5"),
        ("claude-sonnet-5", "Claude Sonnet 5"),
        ("claude-haiku-4-5-20251001", "Claude Haiku 4.5 (2025-10-01)"),
        ("glm-4.5-air", "GLM 4.5 Air"),
        ("deepseek-v4-pro", "DeepSeek V4 Pro"),
        ("kimi-k2.7-code", "Kimi K2.7 Code"),
        ("MiniMax-M3", "MiniMax M3"),
        ("anthropic/claude-opus-5", "anthropic: Claude Opus 5"),
        ("gpt-oss:120b", "GPT OSS (120b)"),
        ("-", "-"),
        ("a/:b", "a: :b (b)"),
    ],
)
def test_models_have_names_for_people(model: str, name: str) -> None:
    """Claude Code shows them in its picker."""
    assert display_name(model) == name


Breaking = Callable[[pb.Snapshot], object]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda s: setattr(s, "version", 0), "version"),
        (lambda s: s.ClearField("created_at"), "created_at"),
        (lambda s: s.ClearField("config_hash"), "config_hash"),
        (lambda s: s.ClearField("providers"), "no provider"),
        (lambda s: s.providers.add(name="a").CopyFrom(s.providers[0]), "there twice"),
        (lambda s: s.routes.add(name="route-1").CopyFrom(s.routes[0]), "there twice"),
        (lambda s: s.routes[-1].models.append("m"), "the last route must fit"),
        (lambda s: s.ClearField("routes"), "the last route must fit"),
        (lambda s: s.auth.ClearField("mode"), "auth mode"),
        (lambda s: s.auth.ClearField("clients"), "nobody could use"),
        (lambda s: setattr(s.auth.clients[0], "key_sha256", b"short"), "32 bytes"),
        (lambda s: setattr(s.auth.clients[0], "name", ""), "has no name"),
        (lambda s: s.providers[0].ClearField("type"), "type is not set"),
        (lambda s: s.providers[0].ClearField("base_url"), "base URL"),
        (lambda s: setattr(s.providers[0], "base_url", "https://x/"), "base URL"),
        (lambda s: s.providers[0].ClearField("auth_style"), "auth style"),
        (lambda s: s.providers[0].ClearField("keys"), "needs a key"),
        (lambda s: s.providers[0].traits.ClearField("system_turns"), "system_turns"),
        (lambda s: s.providers[0].timeouts.ClearField("idle"), "idle timeout"),
        (lambda s: setattr(s.providers[0].timeouts.connect, "seconds", -1), "connect timeout"),
        (lambda s: s.providers[0].keys[0].ClearField("secret"), "is empty"),
        (lambda s: s.providers[0].keys[0].ClearField("weight"), "weight"),
        (lambda s: setattr(s.providers[0].keys[0], "priority", -1), "priority"),
        (lambda s: s.providers[0].headers.add(name="X-A", value="1"), "cannot be sent"),
        (lambda s: s.providers[0].headers.add(name="x-a", value="1\n"), "cannot be sent"),
        (lambda s: s.providers[0].model_rules.add(pattern="a"), "model rule"),
        (lambda s: s.routes[0].ClearField("strategy"), "strategy"),
        (lambda s: s.routes[0].ClearField("candidates"), "no candidate"),
        (lambda s: setattr(s.routes[0].candidates[0], "provider", "b"), "no provider 'b'"),
        (lambda s: setattr(s.routes[0].candidates[0], "weight", 0), "weight"),
        (lambda s: setattr(s.relay, "max_attempts", 101), "max_attempts"),
        (lambda s: setattr(s.relay, "max_body_bytes", 0), "max_body_bytes"),
        (lambda s: s.relay.ClearField("silence_bound"), "silence_bound"),
        (lambda s: s.relay.ClearField("read_timeout"), "read_timeout"),
        (lambda s: setattr(s.relay.cooldown, "seconds", -1), "cooldown"),
        (lambda s: setattr(s.relay.failover_timeout, "seconds", -1), "failover_timeout"),
    ],
)
def test_what_a_node_would_reject_is_found_before_it_is_published(break_it: Breaking, words: str) -> None:
    """A rejected snapshot would leave the fleet on the one before, with nobody to tell why."""
    broken = snapshot(
        ANTHROPIC,
        server={"auth": {"keys": [{"name": "laptop", "key": "k"}]}},
        routing={"routes": [{"to": [{"provider": "a"}]}]},
    )
    break_it(broken)
    found = check(broken)
    assert any(words in problem for problem in found), found
