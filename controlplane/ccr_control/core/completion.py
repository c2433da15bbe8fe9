"""A configuration with nothing left unsaid: what presets know, filled in.

Pure. Completing twice changes nothing.
"""

from __future__ import annotations

from functools import lru_cache

from ccr_control.core import catalogue
from ccr_control.core.clouds import filled_cloud
from ccr_control.core.patterns import covers, fits, is_exact
from ccr_control.core.presets import WHATEVER_IS_INSTALLED, Preset, preset_of
from ccr_control.core.provider_schema import ModelConfig, ProviderConfig, TraitsConfig
from ccr_control.core.schema import AuthConfig, Config


def filled(provider: ProviderConfig) -> ProviderConfig:
    """The provider with every field set that its kind has a default for. Filling twice changes nothing."""
    preset = preset_of(provider)
    provider = filled_cloud(provider)
    served = _serves(provider, preset)
    keyless = not provider.keys and preset.keys_optional
    return provider.model_copy(
        update={
            "base_url": provider.base_url or preset.base_url,
            "price_factor": 1.0 if provider.price_factor is None else provider.price_factor,
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


def renamed(provider: ProviderConfig, model: str) -> str:
    """What a filled provider calls a model, as nodes decide it: the rule with the most literal characters."""
    rules = [(len(rule.replace("*", "")), there) for rule, there in provider.model_mapping.items() if fits(rule, model)]
    return max(rules, key=lambda rule: rule[0])[1] if rules else model


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
    return provider.serves is None and provider.models is None and preset_of(provider).serves == WHATEVER_IS_INSTALLED


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
