"""The configuration that is made when there is none."""

from __future__ import annotations

import pytest
from ccr_control.core.builtin import VARIABLES, for_demo, from_environment, ollama_url
from ccr_control.core.config import load
from ccr_control.core.schema import Config


def loaded(text: str, env: dict[str, str]) -> Config:
    return load(text, file="builtin.yaml", fmt="yaml", env=env).config


def test_nothing_in_the_environment_makes_no_configuration() -> None:
    """Then the demo is started; an empty variable is as good as none."""
    assert from_environment({"ANTHROPIC_API_KEY": "", "HOME": "/root"}) is None


@pytest.mark.parametrize("variable", VARIABLES)
def test_each_variable_makes_a_valid_configuration(variable: str) -> None:
    """`ANTHROPIC_API_KEY=… make run` is all that it takes."""
    value = "http://localhost:11434" if variable == "OLLAMA_HOST" else "sk-secret"
    text = from_environment({variable: value})
    assert text is not None
    config = loaded(text, {variable: value})
    assert len(config.providers) == 1
    assert config.server.listen.is_loopback
    assert config.server.auth is not None
    assert (config.server.auth.mode, config.server.auth.allow_subscription) == ("none", True)


def test_secrets_are_named_and_never_written() -> None:
    """The file lies in the state directory for everybody's backup to find."""
    env = dict.fromkeys(VARIABLES, "sk-secret")
    text = from_environment({**env, "OLLAMA_HOST": "localhost"})
    assert text is not None
    assert "sk-secret" not in text
    assert "${ANTHROPIC_API_KEY}" in text


def test_several_providers_are_tried_in_the_order_of_preference() -> None:
    """With a key for Anthropic and one for Z.AI, Claude answers while it can."""
    env = {"ZAI_API_KEY": "z", "ANTHROPIC_API_KEY": "a", "OLLAMA_HOST": "gpu"}
    text = from_environment(env)
    assert text is not None
    config = loaded(text, env)
    assert config.routing.strategy == "failover"
    ranked = sorted(config.providers, key=lambda provider: provider.priority)
    assert [provider.name for provider in ranked] == ["anthropic", "zai", "ollama"]


def test_the_demo_configuration_is_valid_and_loopback_only() -> None:
    """It needs no environment at all."""
    config = loaded(for_demo(4711), {})
    assert [provider.base_url for provider in config.providers] == ["http://127.0.0.1:4711"]


def test_the_demo_lists_models_and_answers_for_any() -> None:
    """Claude Code's model discovery finds some; a name that a user types works, too."""
    (demo,) = loaded(for_demo(4711), {}).providers
    assert [model.id for model in demo.models or ()] == ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"]
    assert demo.serves == ("*",)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost", "http://localhost:11434"),
        ("localhost:8080", "http://localhost:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (":11435", "http://127.0.0.1:11435"),
        ("0.0.0.0:11434", "http://127.0.0.1:11434"),
        ("http://gpu", "http://gpu:80"),
        ("https://ollama.com", "https://ollama.com:443"),
        ("https://ollama.com:8443/team/", "https://ollama.com:8443/team"),
        ("[::1]", "http://[::1]:11434"),
        ("[::]:99", "http://[::1]:99"),
    ],
)
def test_ollamas_host_is_read_as_ollama_reads_it(host: str, url: str) -> None:
    """The same variable starts Ollama's server, where 0.0.0.0 means "listen everywhere"."""
    assert ollama_url(host) == url
