"""Other programs' configurations become ones of ours that load, and what is lost is said."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
from ccr_control.core.config import load
from ccr_control.core.errors import ConfigInvalid
from ccr_control.core.importing import Imported, NotRecognised, Source, imported
from ccr_control.core.schema import Config
from hypothesis import given
from hypothesis import strategies as st

SECRET = "sk-a-secret-that-was-written-out-1234"


def loaded(found: Imported) -> Config:
    """The configuration that came of it, with something for each variable."""
    names = re.findall(r"\$\{(\w+)\}", found.text)
    env = {name: f"value-of-{name.lower()}" for name in names}
    return load(found.text, file="imported", fmt="yaml", env=env).config


def lost(found: Imported) -> list[str]:
    return [one.path for one in found.not_carried_over]


ROUTER = {
    "LOG": True,
    "PORT": 3456,
    "APIKEY": SECRET,
    "API_TIMEOUT_MS": 600000,
    "Providers": [
        {
            "name": "openrouter",
            "api_base_url": "https://openrouter.ai/api/v1/chat/completions",
            "api_key": SECRET + "5",
            "models": ["google/gemini-2.5-pro-preview", "anthropic/claude-sonnet-4"],
            "transformer": {"use": ["openrouter"]},
        },
        {
            "name": "DeepSeek",
            "api_base_url": "https://api.deepseek.com/chat/completions",
            "api_key": "$DEEPSEEK_API_KEY",
            "models": ["deepseek-chat", "deepseek-reasoner"],
        },
        {
            "name": "ollama",
            "api_base_url": "http://localhost:11434/v1/chat/completions",
            "api_key": "ollama",
            "models": ["qwen2.5-coder:latest"],
        },
        {"name": "gemini", "api_base_url": "https://generativelanguage.googleapis.com/v1beta/models/", "models": ["g"]},
    ],
    "Router": {
        "default": "deepseek,deepseek-chat",
        "background": "ollama,qwen2.5-coder:latest",
        "think": "deepseek,deepseek-reasoner",
        "longContext": "openrouter,google/gemini-2.5-pro-preview",
        "longContextThreshold": 70000,
        "webSearch": "gemini,g",
    },
}


def test_claude_code_router() -> None:
    found = imported(json.dumps(ROUTER))
    config = loaded(found)
    assert found.source == "claude-code-router"
    assert SECRET not in found.text
    assert "${DEEPSEEK_API_KEY}" in found.text
    assert [(one.name, one.type, one.preset) for one in config.providers] == [
        ("openrouter", "anthropic-compatible", "openrouter"),
        ("deepseek", "anthropic-compatible", "deepseek"),
        ("ollama", "ollama", None),
    ]
    assert [(route.name, route.to[0].provider, route.to[0].model) for route in config.routing.routes] == [
        ("longContext", "openrouter", "google/gemini-2.5-pro-preview"),
        ("background", "ollama", "qwen2.5-coder:latest"),
        ("think", "deepseek", "deepseek-reasoner"),
        ("everything-else", "deepseek", "deepseek-chat"),
    ]
    assert config.routing.routes[0].match.min_input_tokens == 70000
    assert lost(found) == ["Providers[0].transformer", "Providers[3]", "Router.webSearch", "API_TIMEOUT_MS"]


LITELLM = """\
model_list:
  - model_name: claude-sonnet-4-5
    litellm_params: {model: anthropic/claude-sonnet-4-5, api_key: os.environ/ANTHROPIC_API_KEY, rpm: 60, weight: 2}
  - model_name: claude-sonnet-4-5
    litellm_params: {model: anthropic/claude-sonnet-4-5, api_key: sk-a-secret-that-was-written-out-1234, order: 2}
  - model_name: claude-sonnet-4-5
    litellm_params: {model: bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0, aws_region_name: us-west-2}
  - model_name: claude-opus-4-5
    litellm_params: {model: vertex_ai/claude-opus-4-5, vertex_project: my-project, vertex_location: global}
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY}
litellm_settings: {drop_params: true}
router_settings: {routing_strategy: latency-based-routing, num_retries: 2, redis_host: localhost}
general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}
"""


def test_litellm() -> None:
    found = imported(LITELLM)
    config = loaded(found)
    assert found.source == "litellm"
    assert SECRET not in found.text
    assert [(one.name, one.type) for one in config.providers] == [
        ("anthropic", "anthropic"),
        ("bedrock", "bedrock"),
        ("vertex_ai", "vertex"),
    ]
    assert [key.rpm_limit for key in config.providers[0].keys] == [60, None]
    sonnet, opus = config.routing.routes
    assert sonnet.match.model == ("claude-sonnet-4-5",)
    assert [(one.provider, one.weight, one.priority) for one in sonnet.to] == [
        ("anthropic", 2, None),
        ("anthropic", None, 2),
        ("bedrock", None, None),
    ]
    assert [one.provider for one in opus.to] == ["vertex_ai"]
    assert (config.routing.strategy, config.routing.max_attempts) == ("latency-based", 3)
    assert lost(found) == ["model_list[4].litellm_params", "router_settings.redis_host", "litellm_settings"]


GO_YAML = """\
server:
  listen: 127.0.0.1:8787
  api_key: sk-a-secret-that-was-written-out-1234
  colour: green
routing: {strategy: round_robin, failover_timeout: 5s}
logging: {level: debug}
providers:
  - name: anthropic
    type: anthropic
    enabled: true
    keys: [{key: "${ANTHROPIC_API_KEY}", rpm_limit: 50, tpm_limit: 30000, priority: 1, weight: 3}]
  - name: zai
    type: zai
    base_url: https://api.z.ai/api/anthropic
    keys: [{key: sk-a-secret-that-was-written-out-5678}]
    model_mapping: {claude-sonnet-4-5: GLM-4.7}
"""
GO_TOML = """\
[server]
listen = "127.0.0.1:8787"
[routing]
strategy = "failover"
[[providers]]
name = "local"
type = "ollama"
base_url = "http://localhost:11434"
"""


def test_the_go_program_of_this_name() -> None:
    found = imported(GO_YAML)
    config = loaded(found)
    assert found.source == "cc-relay-go"
    assert "sk-a-secret" not in found.text
    assert (config.routing.strategy, [key.name for key in config.server.auth.keys]) == ("round-robin", ["client"])
    assert [(key.rpm_limit, key.weight, key.priority) for key in config.providers[0].keys] == [(50, 3, 1)]
    assert config.providers[1].model_mapping == {"claude-sonnet-4-5": "GLM-4.7"}
    assert sorted(lost(found)) == ["logging", "server.colour"]


def test_the_go_program_writes_toml_too() -> None:
    config = loaded(imported(GO_TOML))
    assert [one.name for one in config.providers] == ["local"]
    assert config.routing.strategy == "failover"


@pytest.mark.parametrize(
    "text", ["", "[]", "hello: world", "providers: 3", "model_list: 5", '{"Providers": {}}', "providers: [{}]", "a: [b"]
)
def test_what_is_none_of_these_is_refused(text: str) -> None:
    with pytest.raises((NotRecognised, ConfigInvalid)):
        imported(text)


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 99999), st.text(max_size=12), st.just("anthropic/claude-x")
)
theirs = (
    "Providers",
    "Router",
    "api_base_url",
    "default",
    "model_list",
    "litellm_params",
    "model_name",
    "general_settings",
)
ours = ("providers", "keys", "key", "api_key", "name", "type", "model", "auth", "server", "routing", "routes")
names = st.sampled_from((*theirs, *ours))
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5), max_leaves=25
)


@given(
    st.dictionaries(names, trees, max_size=6), st.sampled_from([None, "cc-relay-go", "claude-code-router", "litellm"])
)
def test_whatever_stands_in_it_there_is_an_answer(tree: dict[str, object], source: Source | None) -> None:
    """A configuration that loads but for what is told, or a refusal in words; never a mistake of ours."""
    with contextlib.suppress(NotRecognised, ConfigInvalid):
        assert imported(json.dumps(tree), source).text.startswith("# Made from a configuration of ")


@given(st.text(max_size=80))
def test_any_text_gets_an_answer(text: str) -> None:
    with contextlib.suppress(NotRecognised, ConfigInvalid):
        imported(text)
