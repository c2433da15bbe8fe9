"""The shape of a provider in the configuration: its keys, models, timeouts and traits.

Pure. What is left out is filled in from `presets`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ccr_control.core.addresses import BaseUrl
from ccr_control.core.cloud_schema import (
    AwsConfig,
    BedrockEndpoint,
    EntraConfig,
    GoogleConfig,
    InferenceProfile,
    Location,
    Project,
    Region,
    Resource,
    Workspace,
)
from ccr_control.core.scalars import (
    CaFile,
    DisplayName,
    Flag,
    HeaderName,
    Int,
    Label,
    ModelName,
    Number,
    Pattern,
    PositiveDuration,
    ProviderName,
    ServesPattern,
    Timestamp,
)
from ccr_control.core.secret import Credential, HeaderValue
from ccr_control.core.section import Section

_Type = Literal[
    "anthropic", "zai", "ollama", "bedrock", "azure", "vertex", "claude-aws", "claude-gcp", "anthropic-compatible"
]
_ALSO_CALLED = {"azure-foundry": "azure"}
ProviderType = Annotated[
    _Type, BeforeValidator(lambda value: _ALSO_CALLED.get(value, value) if isinstance(value, str) else value)
]
PresetName = Literal["minimax", "moonshot", "deepseek", "openrouter", "vllm", "llama-cpp", "lm-studio"]
AuthStyle = Literal["x-api-key", "bearer", "both", "none", "azure", "sigv4"]
SystemTurns = Literal["pass", "fold", "reject"]
KeySelection = Literal["least-loaded", "weighted", "round-robin", "priority"]
KeyState = Literal["active", "deprecated", "disabled"]
Usd = Annotated[Number, Field(ge=0, le=1_000_000)]
Weight = Annotated[Int, Field(ge=1, le=1_000_000)]
Priority = Annotated[Int, Field(ge=0, le=1_000_000)]


class KeyConfig(Section):
    """One credential of a provider."""

    label: Label | None = None
    """Public name. Absent: `key-1`, `key-2`, … by position, which is what changes at run time then follow."""
    key: Credential | None = None
    """The credential, best as `${VARIABLE}`. Instead of it, where a cloud takes that: `aws`, `entra` or `google`."""
    aws: AwsConfig | None = None
    """AWS credentials, for `bedrock` and `claude-aws`: requests are signed."""
    entra: EntraConfig | None = None
    """Entra ID tokens, for `azure`."""
    google: GoogleConfig | None = None
    """Google tokens, for `vertex` and `claude-gcp`."""
    scope: Label | None = None
    """The account whose limits and caches it shares with other keys. Absent: its own."""
    rpm_limit: Annotated[Int, Field(ge=1)] | None = None
    """Requests a minute of its scope, for each class of models. Absent: the provider's own headers decide."""
    tpm_limit: Annotated[Int, Field(ge=1)] | None = None
    """Tokens a minute, input and output together. Absent: the provider's own headers decide."""
    itpm_limit: Annotated[Int, Field(ge=1)] | None = None
    """Input tokens a minute, without cache reads. Absent: the provider's own headers decide."""
    otpm_limit: Annotated[Int, Field(ge=1)] | None = None
    """Output tokens a minute. Absent: the provider's own headers decide."""
    weight: Weight = 1
    """Share among keys of equal priority."""
    priority: Priority = 0
    """Lower is tried first."""
    state: KeyState = "active"
    """`deprecated`: only sessions that live on it already still use it. `disabled`: nobody does."""

    @property
    def cloud(self) -> AwsConfig | EntraConfig | GoogleConfig | None:
        """How a cloud's credential is found; None: `key` says it."""
        return self.aws or self.entra or self.google

    def secret(self) -> str:
        """What is sent; empty if it must be found first, or requests are signed instead."""
        return self.key.reveal() if self.key is not None else ""

    def secrets(self) -> Iterator[str]:
        """Whatever of it must not be shown."""
        aws, entra = self.aws or AwsConfig(), self.entra or EntraConfig()
        for one in (self.key, aws.access_key_id, aws.secret_access_key, aws.session_token, entra.client_secret):
            if one is not None:
                yield one.reveal()

    def digest(self) -> str:
        """Differs if what the configuration says of the credential does; tells nothing of it. Hex."""
        if self.key is not None:
            return self.key.sha256().hex()
        said = self.model_dump(
            mode="json",
            include={"aws", "entra", "google"},
            exclude_none=True,
            context={"secret": lambda secret: secret.sha256().hex()},
        )
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


class ModelConfig(Section):
    """A model that clients can ask for."""

    id: ModelName
    """The name a client says."""
    display_name: DisplayName | None = None
    """The name for people. Absent: made from the id."""
    created_at: Timestamp | None = None
    """When it was published, RFC 3339."""


class LongPromptsConfig(Section):
    """What long prompts cost, all of them."""

    above: Annotated[Int, Field(ge=1, le=10**9)]
    """Tokens of the prompt, those read from and written to caches included, above which this is so."""
    factor: Annotated[Number, Field(gt=0, le=1000)]
    """How many times as much they cost."""


class PriceConfig(Section):
    """What a model costs, in USD per million tokens."""

    input: Usd
    """Input that no cache has a part in."""
    output: Usd
    """Output."""
    cache_read: Usd | None = None
    """Input read from a prompt cache. Absent: as `input`."""
    cache_write_5m: Usd | None = None
    """Input written to a five-minute prompt cache. Absent: as `input`."""
    cache_write_1h: Usd | None = None
    """Input written to a one-hour prompt cache. Absent: as `cache_write_5m`."""
    long_prompts: LongPromptsConfig | None = None
    """Absent: a prompt costs the same whatever its size."""


def _model_by_id(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


def _forward_drop_or_list(value: Any) -> Any:
    if value in ("forward", "drop") or (isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)):
        return value
    raise ValueError("must be forward, drop, or a list of the values to forward")


class TimeoutsConfig(Section):
    """How long to wait for a provider."""

    connect: PositiveDuration = timedelta(seconds=5)
    """TCP connect and TLS handshake."""
    first_byte: PositiveDuration = timedelta(minutes=10)
    """From the end of the request to the first byte of the answer. Long thinking is normal."""
    idle: PositiveDuration = timedelta(minutes=6)
    """Between two bytes of an answer."""
    total: PositiveDuration | None = None
    """From the start of an attempt to the end of its answer. Absent: as long as it takes."""


class TraitsConfig(Section):
    """What a provider can and cannot do. Absent: as its type or preset is known to be."""

    count_tokens: Flag | None = None
    """Has `/v1/messages/count_tokens`."""
    system_turns: SystemTurns | None = None
    """What to do with `role: "system"` entries of `messages`: pass them, fold them into user turns, or reject."""
    documents: Flag | None = None
    """Reads `document` blocks (PDFs and text)."""
    prompt_caching: Flag | None = None
    """Honours `cache_control`, or ignores it harmlessly."""
    batches_and_files: Flag | None = None
    """Has `/v1/messages/batches` and `/v1/files`."""
    anthropic_signatures: Flag | None = None
    """Its signed thinking blocks verify at Anthropic."""


class ProviderConfig(Section):
    """An upstream."""

    name: ProviderName
    """Unique name: lower-case letters, digits, `-`, `_` and `.`."""
    type: ProviderType
    """What kind of upstream it is. `azure-foundry` is another name of `azure`."""
    preset: PresetName | None = None
    """A known service, for `anthropic-compatible` only: sets what is not said otherwise."""
    enabled: Flag = True
    """A disabled provider gets no request."""
    draining: Flag = False
    """Only sessions that live there go on; everything else goes elsewhere."""
    base_url: BaseUrl | None = None
    """Where it is; `/v1/messages` is appended. Absent: as the type or preset knows."""
    allow_private: Flag = False
    """Allow a private or loopback address, and plain http."""
    ca_file: CaFile | None = None
    """PEM certificates to trust for it instead of the system's; relative to the configuration's file."""
    auth_style: AuthStyle | None = None
    """How a key is attached. Absent: as the type or preset knows. `azure` and `sigv4` are for clouds only."""
    region: Region | None = None
    """AWS region, for `bedrock` and `claude-aws`: there required."""
    endpoint: BedrockEndpoint | None = None
    """Which API of `bedrock`: InvokeModel (the default), or the Messages API on `native` bedrock-runtime or bedrock-`mantle`."""
    inference_profile: InferenceProfile | None = None
    """Prefix of the model ids of `bedrock`; `none`: bare ids. Absent: the region's."""
    resource: Resource | None = None
    """Name of the Foundry resource, for `azure`: required without a `base_url`."""
    project: Project | None = None
    """Google Cloud project, for `vertex` and `claude-gcp`: there required."""
    location: Location | None = None
    """Google Cloud location, for `vertex` and `claude-gcp`: `global` (the default), `us`, `eu` or a region."""
    workspace: Workspace | None = None
    """Workspace of `claude-aws` and `claude-gcp`: there required. At bedrock-mantle: the project, if not the default one."""
    keys: tuple[KeyConfig, ...] = ()
    """Its credentials."""
    aws: AwsConfig | None = None
    """The same as one key with this `aws`. Where nothing is said, botocore's own chain finds the credentials."""
    entra: EntraConfig | None = None
    """The same as one key with this `entra`."""
    google: GoogleConfig | None = None
    """The same as one key with this `google`. Where nothing is said, Application Default Credentials are used."""
    key_selection: KeySelection = "least-loaded"
    """How its keys share the requests; those with the lowest `priority` come first in each."""
    model_mapping: Mapping[Pattern, ModelName] = Field(default_factory=dict)
    """Client's model name (or a pattern with `*`) → the name there. The rule with the most literal characters wins."""
    adjust_renamed: Flag = False
    """Make requests fit whose model is renamed, here or by a route, to one of another generation of Claude."""
    models: (
        tuple[Annotated[ModelConfig, BeforeValidator(_model_by_id, json_schema_input_type=str | ModelConfig)], ...]
        | None
    ) = None
    """What it has, for `GET /v1/models` and, unless `serves` says otherwise, for routing."""
    serves: tuple[ServesPattern, ...] | None = None
    """Patterns of the models it may be asked for without a route; `!` in front excludes."""
    weight: Weight = 1
    """Share among providers."""
    priority: Priority = 0
    """Lower is tried first by `failover`."""
    prices: Mapping[Pattern, PriceConfig] = Field(default_factory=dict)
    """Its own model name (or a pattern with `*`) → what it costs. Absent: as the relay's table has it; local runtimes: nothing."""
    price_factor: Annotated[Number, Field(ge=0, le=1000)] | None = None
    """Factor on the relay's table: 0 where a subscription is paid for anyway. Absent: 1; clouds: as the region has it, mostly 1.1."""
    headers: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict)
    """Headers added to every request to it."""
    betas: Annotated[Literal["forward", "drop"] | tuple[str, ...], BeforeValidator(_forward_drop_or_list)] = "forward"
    """What happens to `anthropic-beta` values. `forward`, for a cloud: those it takes, by its own names."""
    timeouts: TimeoutsConfig = TimeoutsConfig()
    """How long to wait for it."""
    traits: TraitsConfig = TraitsConfig()
    """What it can and cannot do."""
