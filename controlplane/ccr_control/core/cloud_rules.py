"""Rules between fields of clouds: what each type needs and takes, which credentials belong together, which model ids exist.

Pure. Part of `crosscheck`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ccr_control.core.cloud_models import profile_fits, usual_profile
from ccr_control.core.cloud_schema import AwsConfig, EntraConfig, GoogleConfig
from ccr_control.core.clouds import CLOUDS, id_there, model_problem
from ccr_control.core.completion import is_served, renamed
from ccr_control.core.document import Document, Path
from ccr_control.core.finding import PROVIDERS, ROUTES, Finding
from ccr_control.core.patterns import is_exact
from ccr_control.core.provider_schema import KeyConfig, ProviderConfig
from ccr_control.core.schema import Config

_ONLY_FOR = {
    "region": ("bedrock", "claude-aws"),
    "endpoint": ("bedrock",),
    "inference_profile": ("bedrock",),
    "resource": ("azure",),
    "project": ("vertex", "claude-gcp"),
    "location": ("vertex", "claude-gcp"),
    "workspace": ("bedrock", "claude-aws", "claude-gcp"),
    "aws": ("bedrock", "claude-aws"),
    "entra": ("azure",),
    "google": ("vertex", "claude-gcp"),
}
_NEEDS = {
    "bedrock": {"region": 'the AWS region, such as us-east-1, or "${AWS_REGION}"'},
    "claude-aws": {
        "region": 'the AWS region, such as us-east-1, or "${AWS_REGION}"',
        "workspace": "the id of the workspace",
    },
    "vertex": {"project": "the Google Cloud project's id"},
    "claude-gcp": {"project": "the Google Cloud project's id", "workspace": "the id of the workspace"},
}


def fields(config: Config, document: Document) -> Iterator[Finding]:
    """What a type does not take, and what it cannot do without."""
    for i, provider in enumerate(config.providers):
        at: Path = (*PROVIDERS, i)
        kind: tuple[Path, ...] = ((*at, "type"),)
        for name, types in _ONLY_FOR.items():
            if provider.type not in types and document.written((*at, name)) is not None:
                message = f"is for {' and '.join(types)}, not for {provider.type}: remove it"
                yield Finding((*at, name), message, kind, at_key=True)
        for name, what in _NEEDS.get(provider.type, {}).items():
            if getattr(provider, name) is None:
                yield Finding((*at, name), f"is required: {what}", kind)
        if provider.type == "azure" and provider.base_url is None:
            message = "is required: the name of the Foundry resource, or a `base_url`"
            yield Finding((*at, "resource"), message, (*kind, (*at, "base_url")))
        if provider.type == "bedrock":
            yield from _profile(at, provider, document)


def _profile(at: Path, provider: ProviderConfig, document: Document) -> Iterator[Finding]:
    profile, region = document.written((*at, "inference_profile")), provider.region
    is_mantle = provider.endpoint == "mantle"
    rests_on = ((*at, "region"), (*at, "endpoint"), (*at, "type"))
    if profile is not None and is_mantle:
        yield Finding((*at, "inference_profile"), "does not exist at bedrock-mantle: remove it", rests_on)
    elif region is not None and provider.inference_profile and not profile_fits(provider.inference_profile, region):
        message = f"cannot be called from {region}: write {usual_profile(region)}"
        yield Finding((*at, "inference_profile"), message, rests_on)
    if provider.workspace is not None and not is_mantle:
        yield Finding((*at, "workspace"), "is for `endpoint: mantle` only: remove it", ((*at, "endpoint"),))


def credentials(config: Config, document: Document) -> Iterator[Finding]:
    """One credential for each key, of a kind that the type takes, and one kind for each provider."""
    for i, provider in enumerate(config.providers):
        at: Path = (*PROVIDERS, i)
        kinds: set[bool] = set()
        for path, key in _places(at, provider, document):
            kinds.add(key.cloud is not None)
            yield from _one_of(path, key, provider)
            for name, part in (("aws", key.aws), ("entra", key.entra), ("google", key.google)):
                where = path if path[-1] == name else (*path, name)
                yield from _inside(where, part)
        keys: Path = (*at, "keys")
        if len(kinds) > 1:
            message = "of one provider must be all of a kind, written out or found: make two providers"
            yield Finding(keys, message, ((*at, "auth_style"),))
        yield from _style(at, provider, kinds)


def _places(at: Path, provider: ProviderConfig, document: Document) -> Iterator[tuple[Path, KeyConfig]]:
    """Each key and where it is written. What is said of the provider as a whole is the first of its keys."""
    written = document.written((*at, "keys"))
    count = len(written) if isinstance(written, list) else 0
    ahead = len(provider.keys) - count
    for index, key in enumerate(provider.keys):
        if index >= ahead:
            yield (*at, "keys", index - ahead), key
        else:
            name = next((one for one in ("aws", "entra", "google") if getattr(key, one) is not None), "keys")
            yield (*at, name), key


def _one_of(path: Path, key: KeyConfig, provider: ProviderConfig) -> Iterator[Finding]:
    said = [name for name in ("key", "aws", "entra", "google") if getattr(key, name) is not None]
    is_shorthand = path[-1] in ("aws", "entra", "google")
    if not said:
        own = next((name for name, types in _ONLY_FOR.items() if provider.type in types and name in _FOUND), None)
        more = f", or `{own}` to have it found" if own else ""
        yield Finding((*path, "key"), f'is required: the credential, best as "${{NAME}}"{more}', (path,))
    elif len(said) > 1 and not is_shorthand:
        message = f"one key has one credential: make it two keys, or keep one of {', '.join(said)}"
        yield Finding(path, message, tuple((*path, name) for name in said))
    for name in said:
        if name in _ONLY_FOR and provider.type not in _ONLY_FOR[name] and not is_shorthand:
            message = f"is for {' and '.join(_ONLY_FOR[name])}, not for {provider.type}: remove it"
            yield Finding((*path, name), message, at_key=True)


_FOUND = ("aws", "entra", "google")


def _inside(at: Path, part: AwsConfig | EntraConfig | GoogleConfig | None) -> Iterator[Finding]:
    match part:
        case AwsConfig():
            yield from _aws(at, part)
        case EntraConfig():
            yield from _entra(at, part)
        case GoogleConfig(delegates=(_, *_), impersonate=None):
            yield Finding((*at, "delegates"), "lead to `impersonate`, which is missing: say it, or remove them")


def _aws(at: Path, aws: AwsConfig) -> Iterator[Finding]:
    pair = ("access_key_id", "secret_access_key")
    missing = [name for name in pair if getattr(aws, name) is None]
    if len(missing) == 1 or (len(missing) == 2 and aws.session_token is not None):
        others = tuple((*at, name) for name in (*pair, "session_token"))
        yield Finding((*at, missing[0]), "is required with the other half of the key", others)
    if aws.profile is not None and not missing:
        yield Finding((*at, "profile"), "contradicts `access_key_id`: remove one of them", ((*at, "access_key_id"),))
    for name in ("external_id", "web_identity_token_file"):
        if getattr(aws, name) is not None and aws.role_arn is None:
            yield Finding((*at, name), "is for assuming a role: add `role_arn`", ((*at, "role_arn"),))
    if aws.web_identity_token_file is not None and (aws.profile is not None or aws.access_key_id is not None):
        message = "is used instead of other credentials: remove it, or `profile` and `access_key_id`"
        yield Finding((*at, "web_identity_token_file"), message)


def _entra(at: Path, entra: EntraConfig) -> Iterator[Finding]:
    if entra.credential == "client-secret":
        for name in ("tenant_id", "client_id", "client_secret"):
            if getattr(entra, name) is None:
                yield Finding((*at, name), "is required for `credential: client-secret`", ((*at, "credential"),))
    elif entra.client_secret is not None:
        message = "is for `credential: client-secret` only: say that, or remove it"
        yield Finding((*at, "client_secret"), message, ((*at, "credential"),))
    if entra.token_file is not None and entra.credential != "workload-identity":
        message = "is for `credential: workload-identity` only: say that, or remove it"
        yield Finding((*at, "token_file"), message, ((*at, "credential"),))


def _style(at: Path, provider: ProviderConfig, kinds: set[bool]) -> Iterator[Finding]:
    style, path = provider.auth_style, (*at, "auth_style")
    cloud = CLOUDS.get(provider.type)
    rests_on = ((*at, "type"), (*at, "keys"), (*at, "aws"), (*at, "entra"), (*at, "google"))
    if style == "azure" and cloud != "azure":
        yield Finding(path, "azure is for type azure only: remove it", rests_on)
    elif style == "sigv4" and cloud != "aws":
        yield Finding(path, "sigv4 is for bedrock and claude-aws only: remove it", rests_on)
    elif cloud == "aws" and (style == "sigv4") != (True in kinds) and len(kinds) == 1:
        message = "contradicts the keys: what `aws` finds is signed with (sigv4), what `key` says is sent"
        yield Finding(path, message, rests_on)
    elif cloud in ("azure", "google") and kinds == {True} and style != "bearer":
        yield Finding(path, "contradicts the keys: tokens that are found go out as bearer", rests_on)


def models(config: Config, document: Document) -> Iterator[Finding]:
    """Model ids that the cloud would refuse."""
    by_name = {provider.name: provider for provider in config.providers}
    for i, provider in enumerate(config.providers):
        at: Path = (*PROVIDERS, i)
        rests_on = tuple((*at, name) for name in ("type", "region", "endpoint", "inference_profile"))
        written = document.written((*at, "model_mapping"))
        for name in written if isinstance(written, dict) else ():
            if name in provider.model_mapping and (problem := _problem(provider, provider.model_mapping[name])):
                yield Finding((*at, "model_mapping", name), problem, rests_on)
        listed = document.written((*at, "models"))
        for j, model in enumerate((provider.models or ())[: len(listed) if isinstance(listed, list) else 0]):
            if problem := _problem(provider, renamed(provider, model.id)):
                yield Finding((*at, "models", j), problem, rests_on)
    for r, route in enumerate(config.routing.routes):
        for j, candidate in enumerate(route.to):
            found = by_name.get(candidate.provider)
            if found is None or found.type not in CLOUDS:
                continue
            path: Path = (*ROUTES, r, "to", j)
            if candidate.model is not None:
                problem = _problem(found, id_there(found, candidate.model) or candidate.model)
                if problem:
                    yield Finding((*path, "model"), problem, ((*path, "provider"), PROVIDERS))
                continue
            for name in route.match.model or ():
                if is_exact(name) and not is_served(found, name) and (problem := _problem(found, name)):
                    message = f"{name} {problem}, in `model` here or in the provider's `model_mapping`"
                    yield Finding((*path, "provider"), message, (PROVIDERS,))


def _problem(provider: ProviderConfig, model: str) -> str:
    if not provider.region and provider.type == "bedrock":
        return ""  # its absence has been reported
    return model_problem(provider, model)
