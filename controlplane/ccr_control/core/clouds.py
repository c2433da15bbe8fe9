"""A cloud's provider, filled in: where it is, what its models are called, who may use it, what it costs.

Pure. `completion` asks when it fills in a provider, `compile` when it writes one into a snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ccr_control.core import cloud_models
from ccr_control.core.cloud_schema import AwsConfig, EntraConfig, GoogleConfig
from ccr_control.core.patterns import fits, is_exact
from ccr_control.core.presets import preset_of
from ccr_control.core.provider_schema import AuthStyle, KeyConfig, ProviderConfig

Cloud = Literal["aws", "azure", "google"]

CLOUDS: dict[str, Cloud] = {
    "bedrock": "aws",
    "claude-aws": "aws",
    "azure": "azure",
    "vertex": "google",
    "claude-gcp": "google",
}
"""Whose credentials each type takes."""


@dataclass(frozen=True, slots=True)
class Signing:
    """What AWS requests are signed for."""

    region: str
    service: str


def base_url_of(provider: ProviderConfig) -> str | None:
    """Where a cloud's provider is by what else is said of it; None: that is not enough."""
    region, location = provider.region, provider.location or "global"
    if provider.type == "bedrock" and region is not None:
        zone = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        runtime = f"https://bedrock-runtime.{region}.{zone}"
        mantle = f"https://bedrock-mantle.{region}.api.aws/anthropic"
        return {"native": f"{runtime}/anthropic", "mantle": mantle}.get(provider.endpoint or "", runtime)
    if provider.type == "claude-aws" and region is not None:
        return f"https://aws-external-anthropic.{region}.api.aws"
    if provider.type == "azure" and provider.resource is not None:
        return f"https://{provider.resource.lower()}.services.ai.azure.com/anthropic"
    if provider.type == "vertex":
        return f"https://{_vertex_host(location)}"
    return None


def _vertex_host(location: str) -> str:
    if location == "global":
        return "aiplatform.googleapis.com"
    if location in ("us", "eu"):
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"


def path_of(provider: ProviderConfig) -> str:
    """What stands between a completed provider's base URL and what the adapter appends. Empty: nothing."""
    within = f"/v1/projects/{provider.project}/locations/{provider.location}"
    if provider.type == "vertex":
        return f"{within}/publishers/anthropic/models"
    if provider.type == "claude-gcp":
        return f"{within}/workspaces/{provider.workspace}/invoke"
    return ""


def signing_of(provider: ProviderConfig) -> Signing | None:
    """What a completed provider's requests are signed for; None: they are not."""
    if provider.auth_style != "sigv4" or provider.region is None:
        return None
    if provider.type == "claude-aws":
        return Signing(provider.region, "aws-external-anthropic")
    return Signing(provider.region, "bedrock-mantle" if provider.endpoint == "mantle" else "bedrock")


def filled_cloud(provider: ProviderConfig) -> ProviderConfig:
    """A cloud's provider with what only clouds have filled in. Filling twice changes nothing."""
    cloud = CLOUDS.get(provider.type)
    if cloud is None:
        return provider
    keys = _keys(provider, cloud)
    said: dict[str, object] = {
        "base_url": provider.base_url or base_url_of(provider),
        "keys": keys,
        "aws": None,
        "entra": None,
        "google": None,
        "auth_style": provider.auth_style or _auth_style(keys),
        "price_factor": _usual_factor(provider) if provider.price_factor is None else provider.price_factor,
    }
    if provider.type == "bedrock":
        said["endpoint"] = provider.endpoint or "invoke"
        if provider.region is not None and provider.endpoint != "mantle":
            said["inference_profile"] = provider.inference_profile or cloud_models.usual_profile(provider.region)
    if cloud == "google":
        said["location"] = provider.location or "global"
    full = provider.model_copy(update=said)
    return full.model_copy(update={"model_mapping": _mapping(full)})


def _keys(provider: ProviderConfig, cloud: Cloud) -> tuple[KeyConfig, ...]:
    """The keys; a credential said for the provider as a whole, or none at all, is one."""
    named: tuple[KeyConfig, ...] = ()
    if provider.aws or provider.entra or provider.google:
        named = (KeyConfig(label=cloud, aws=provider.aws, entra=provider.entra, google=provider.google),)
    elif not provider.keys and provider.auth_style in (None, "sigv4"):
        named = {
            "aws": (KeyConfig(label=cloud, aws=AwsConfig()),),
            "azure": (KeyConfig(label=cloud, entra=EntraConfig()),),
            "google": (KeyConfig(label=cloud, google=GoogleConfig()),),
        }[cloud]
    return tuple(
        key if key.scope else key.model_copy(update={"scope": _scope(provider, key)})
        for key in (*named, *provider.keys)
    )


def _scope(provider: ProviderConfig, key: KeyConfig) -> str | None:
    """The account a key belongs to, where that is plain; limits are counted there, in AWS for each region."""
    if key.aws is not None and key.aws.role_arn is not None and provider.region is not None:
        return f"{key.aws.role_arn.split(':')[4]}.{provider.region}"
    if provider.type in ("vertex", "claude-gcp"):
        return provider.project
    return provider.resource if provider.type == "azure" else None


def _auth_style(keys: tuple[KeyConfig, ...]) -> AuthStyle | None:
    """What credentials that are found need; None: as the type knows."""
    if any(key.aws is not None for key in keys):
        return "sigv4"
    return "bearer" if any(key.entra is not None or key.google is not None for key in keys) else None


def id_there(provider: ProviderConfig, model: str) -> str | None:
    """What a cloud calls a model of the Claude API; None: it does not have it, or calls it so itself."""
    if provider.type == "vertex":
        return cloud_models.vertex_id(model)
    if provider.type != "bedrock":
        return None
    if provider.endpoint == "mantle":
        return cloud_models.mantle_id(model)
    return cloud_models.runtime_id(model, provider.inference_profile or "global")


def _mapping(provider: ProviderConfig) -> dict[str, str]:
    """The configured mapping, its targets by the cloud's names; and every model of the Claude API that it serves."""
    said = {name: id_there(provider, model) or model for name, model in provider.model_mapping.items()}
    known = {name: there for name in preset_of(provider).models if (there := id_there(provider, name))}
    if provider.models is not None:
        listed = [model.id for model in provider.models]
        known = {name: there for name in listed if (there := id_there(provider, name))}
    elif provider.serves is not None:
        known = {name: there for name, there in known.items() if _is_asked(provider.serves, name)}
    return said | {name: there for name, there in known.items() if not any(fits(pattern, name) for pattern in said)}


def _is_asked(serves: tuple[str, ...], name: str) -> bool:
    wanted = [pattern for pattern in serves if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in serves if pattern.startswith("!")]
    return any(fits(one, name) for one in wanted) and not any(fits(one, name) for one in unwanted)


def model_problem(provider: ProviderConfig, model: str) -> str:
    """Why a filled provider's cloud would refuse a model of this name, and what to write; empty: nothing speaks against it."""
    if provider.type == "vertex":
        return cloud_models.vertex_problem(model)
    if provider.type != "bedrock":
        return ""
    if provider.endpoint == "mantle":
        return cloud_models.mantle_problem(model)
    return cloud_models.runtime_problem(
        model, region=provider.region or "", profile=provider.inference_profile or "global"
    )


def _usual_factor(provider: ProviderConfig) -> float:
    if provider.type == "bedrock" and provider.region is not None:
        profile = provider.inference_profile or cloud_models.usual_profile(provider.region)
        if provider.endpoint == "mantle":
            return 1.2 if provider.region.startswith("us-gov-") else 1.1
        return cloud_models.profile_factor(profile)
    if provider.type == "vertex":
        return 1.0 if provider.location in (None, "global") else 1.1
    return 1.0


def own_factor(provider: ProviderConfig, model: str) -> float | None:
    """The factor of a model id that says another one than its filled provider has; None: it says none."""
    if provider.type != "bedrock":
        return None
    if provider.endpoint == "mantle":
        return 1.0 if model == "anthropic.claude-haiku-4-5" else None
    prefix = model.partition(".anthropic.")[0]
    return cloud_models.profile_factor(prefix) if prefix in cloud_models.PROFILES else None


def exact_names(provider: ProviderConfig, model: str) -> list[str]:
    """The names by which clients mean a provider's model."""
    return [name for name, there in provider.model_mapping.items() if there == model and is_exact(name)]
