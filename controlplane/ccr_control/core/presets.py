"""What is known about each kind of upstream, so that a configuration need not say it.

Pure. A table and the function that fills in a provider's unset fields from it. Sources: docs/providers/<name>.md;
"unverified" marks what no source says and errs towards the harmless side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ccr_control.core import catalogue
from ccr_control.core.patterns import covers, fits, is_exact
from ccr_control.core.schema import (
    AuthConfig,
    AuthStyle,
    Config,
    ModelConfig,
    ProviderConfig,
    SystemTurns,
    TraitsConfig,
)


@dataclass(frozen=True, slots=True)
class Preset:
    """One kind of upstream."""

    base_url: str | None  # None: the configuration must say it
    auth_style: AuthStyle  # how a key is attached, if there is one
    serves: tuple[str, ...]  # as in the configuration: `!` excludes
    models: tuple[str, ...] = ()
    keys_optional: bool = False
    is_local: bool = False  # plain http and private addresses are its normal case
    count_tokens: bool = True
    system_turns: SystemTurns = "pass"
    documents: bool = True
    prompt_caching: bool = True
    batches_and_files: bool = False
    anthropic_signatures: bool = False


# A local runtime serves whatever is installed on it, which is nothing called "claude" unless a mapping says so.
# `completed` adds what other providers serve.
_WHATEVER_IS_INSTALLED = ("*", "!*claude*")

PRESETS = {
    "anthropic": Preset(
        "https://api.anthropic.com",
        "x-api-key",
        ("claude*",),
        catalogue.ANTHROPIC,
        batches_and_files=True,
        anthropic_signatures=True,
    ),
    # Maps claude names itself. Bearer is what its docs set; count_tokens is unverified: an error of its own passes.
    "zai": Preset("https://api.z.ai/api/anthropic", "bearer", ("claude*", "glm*"), catalogue.ZAI),
    # Drops documents silently, has no caching, answers 404 to count_tokens.
    "ollama": Preset(
        "http://localhost:11434",
        "bearer",
        _WHATEVER_IS_INSTALLED,
        keys_optional=True,
        is_local=True,
        count_tokens=False,
        documents=False,
        prompt_caching=False,
    ),
    "anthropic-compatible": Preset(None, "both", ("*",)),
    # count_tokens and system turns unverified for these three: Claude Code counts by itself where it is missing,
    # and a folded turn is understood everywhere.
    "minimax": Preset(
        "https://api.minimax.io/anthropic",
        "bearer",
        ("minimax*", "MiniMax*"),
        catalogue.MINIMAX,
        count_tokens=False,
        system_turns="fold",
        documents=False,
    ),
    "moonshot": Preset(
        "https://api.moonshot.ai/anthropic",
        "bearer",
        ("kimi*",),
        catalogue.MOONSHOT,
        count_tokens=False,
        system_turns="fold",
        documents=False,
    ),
    # Maps claude names itself: opus to v4-pro, the others to flash; other unknown names are a 400.
    "deepseek": Preset(
        "https://api.deepseek.com/anthropic",
        "x-api-key",
        ("claude*", "deepseek*"),
        catalogue.DEEPSEEK,
        count_tokens=False,
        system_turns="fold",
        documents=False,
    ),
    "openrouter": Preset("https://openrouter.ai/api", "bearer", ("*/*",)),
    "vllm": Preset(
        "http://localhost:8000", "bearer", _WHATEVER_IS_INSTALLED, keys_optional=True, is_local=True, documents=False
    ),
    "llama-cpp": Preset(
        "http://localhost:8080",
        "x-api-key",
        _WHATEVER_IS_INSTALLED,
        keys_optional=True,
        is_local=True,
        system_turns="fold",
        documents=False,
    ),
    "lm-studio": Preset(
        "http://localhost:1234",
        "bearer",
        _WHATEVER_IS_INSTALLED,
        keys_optional=True,
        is_local=True,
        count_tokens=False,
        system_turns="fold",
        documents=False,
    ),
}


def preset_of(provider: ProviderConfig) -> Preset:
    """What is known about a provider's kind."""
    return PRESETS[provider.preset or provider.type]


def filled(provider: ProviderConfig) -> ProviderConfig:
    """The provider with every field set that its kind has a default for. Filling twice changes nothing."""
    preset = preset_of(provider)
    served = _serves(provider, preset)
    keyless = not provider.keys and preset.keys_optional
    return provider.model_copy(
        update={
            "base_url": provider.base_url or preset.base_url,
            "auth_style": provider.auth_style or ("none" if keyless else preset.auth_style),
            "keys": tuple(
                key if key.label else key.model_copy(update={"label": f"key-{number}"})
                for number, key in enumerate(provider.keys, 1)
            ),
            "serves": served,
            "models": _models(provider, preset, served),
            "traits": _traits(provider.traits, preset),
        }
    )


def is_served(provider: ProviderConfig, model: str) -> bool:
    """Whether a filled provider is a candidate for the model where only served ones are asked."""
    if any(fits(pattern, model) for pattern in provider.model_mapping):
        return True
    serves = provider.serves or ()
    if any(fits(pattern[1:], model) for pattern in serves if pattern.startswith("!")):
        return False
    return any(fits(pattern, model) for pattern in serves if not pattern.startswith("!"))


def _serves(provider: ProviderConfig, preset: Preset) -> tuple[str, ...]:
    if provider.serves is not None:
        return provider.serves
    if provider.models is not None:
        return tuple(model.id for model in provider.models)
    return preset.serves


def _models(provider: ProviderConfig, preset: Preset, served: tuple[str, ...]) -> tuple[ModelConfig, ...]:
    """The configured models, else those of its kind that it serves; then the names that its mapping spells out."""
    if provider.models is not None:
        listed = list(provider.models)
    else:
        asked = provider.model_copy(update={"serves": served})
        listed = [_known(model) for model in preset.models if is_served(asked, model)]
    known = {model.id for model in listed}
    listed += [ModelConfig(id=name) for name in provider.model_mapping if is_exact(name) and name not in known]
    return tuple(model if model.display_name else named(model) for model in listed)


@lru_cache(maxsize=256)
def _known(model: str) -> ModelConfig:
    return named(ModelConfig(id=model))


def named(model: ModelConfig) -> ModelConfig:
    """The model with a name for people and, if its id tells, a date."""
    return ModelConfig(
        id=model.id,
        display_name=model.display_name or catalogue.display_name(model.id),
        created_at=model.created_at or catalogue.created_at(model.id) or None,
    )


def _traits(traits: TraitsConfig, preset: Preset) -> TraitsConfig:
    return TraitsConfig(
        **{
            name: getattr(preset, name) if value is None else value
            for name, value in ((name, getattr(traits, name)) for name in TraitsConfig.model_fields)
        }
    )


def completed(config: Config) -> Config:
    """The configuration with nothing left unsaid. Completing twice changes nothing."""
    routes = tuple(
        route if route.name else route.model_copy(update={"name": f"route-{number}"})
        for number, route in enumerate(config.routing.routes, 1)
    )
    return config.model_copy(
        update={
            "server": config.server.model_copy(update={"auth": config.server.auth or AuthConfig(mode="none")}),
            "routing": config.routing.model_copy(update={"routes": routes}),
            "providers": _with_leftovers(config.providers),
        }
    )


def takes_leftovers(provider: ProviderConfig) -> bool:
    """Whether a provider, as configured, serves whatever no other one does."""
    return provider.serves is None and provider.models is None and preset_of(provider).serves == _WHATEVER_IS_INSTALLED


def _with_leftovers(providers: tuple[ProviderConfig, ...]) -> tuple[ProviderConfig, ...]:
    """The providers filled; those that did not say what they have leave to the others what these serve."""
    full = tuple(filled(provider) for provider in providers)
    claims = dict.fromkeys(
        pattern
        for said, provider in zip(providers, full, strict=True)
        if provider.enabled and not takes_leftovers(said)
        for pattern in (*(provider.serves or ()), *provider.model_mapping)
        if pattern != "*" and not pattern.startswith("!") and not covers("*claude*", pattern)
    )
    left = tuple(f"!{pattern}" for pattern in claims)
    return tuple(
        provider.model_copy(update={"serves": (*(provider.serves or ()), *left)}) if takes_leftovers(said) else provider
        for said, provider in zip(providers, full, strict=True)
    )
