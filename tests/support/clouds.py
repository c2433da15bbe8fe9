"""The official SDK's clients for the clouds, and the clouds' names of the models.

    client = sdk_client("bedrock", "http://127.0.0.1:1")
    send(client, each, "anthropic.claude-opus-5-5")

Credentials are fakes; AWS's are those of its published test suite.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
from corpus.cloud_inputs import HAIKU, OPUS, SONNET, CloudInput

REGION = "us-east-1"
ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEYS = {ACCESS_KEY: SECRET_KEY}
SESSION_TOKEN = "FakeSessionToken/+=="
BEARER = "a-cloud-bearer-token.with~signs_+/="
API_KEY = "a-cloud-api-key"
PROJECT = "my-project-123456"
LOCATION = "us-east5"
WORKSPACE = "wrkspc_01AbCdEf23GhIj"

BEDROCK_NAMES = {
    OPUS: "us.anthropic.claude-opus-5-5",
    SONNET: "global.anthropic.claude-sonnet-5-5",
    HAIKU: "us.anthropic.claude-haiku-4-5-20251001-v1:0",
}
BARE_NAMES = {
    OPUS: "anthropic.claude-opus-5-5",
    SONNET: "anthropic.claude-sonnet-5-5",
    HAIKU: "anthropic.claude-haiku-4-5",
}
VERTEX_NAMES = {OPUS: OPUS, SONNET: SONNET, HAIKU: "claude-haiku-4-5@20251001"}
FOUNDRY_NAMES = {OPUS: "team-opus", SONNET: SONNET, HAIKU: "Haiku.4_5-prod"}
ARN = "arn:aws:bedrock:us-east-1:123456789012"


@dataclass(frozen=True)
class Cloud:
    """One way of reaching a cloud."""

    name: str
    face: str  # the demo provider's, and the configuration's word
    names: dict[str, str]  # the Claude API's name of a model -> this cloud's
    odd_names: tuple[str, ...] = ()  # further names that a client or a mapping may ask for
    prefix: str = ""  # of every path, below the host
    service: str = ""  # in AWS's signatures; none: a bearer token or a key
    has_counts: bool = True  # as far as the SDK's client knows
    is_variant: bool = False  # of the cloud before it: only the credential differs

    @property
    def slug(self) -> str:
        """Its name in the relay's configuration."""
        return self.name.replace(" ", "-").lower()


BEDROCK = Cloud(
    "bedrock",
    "bedrock",
    BEDROCK_NAMES,
    (
        "anthropic.claude-opus-4-6-v1",
        "us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0",
        f"{ARN}:inference-profile/us.anthropic.claude-opus-5-5",
        f"{ARN}:application-inference-profile/abc123def456",
        "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:provisioned-model/xyz",
    ),
    service="bedrock",
    has_counts=False,
)
BEDROCK_KEY = Cloud(
    "bedrock with a key", "bedrock", BEDROCK.names, BEDROCK.odd_names, has_counts=False, is_variant=True
)
MANTLE = Cloud("mantle", "mantle", BARE_NAMES, prefix="/anthropic", service="bedrock-mantle")
MANTLE_KEY = Cloud("mantle with a key", "mantle", BARE_NAMES, prefix="/anthropic", is_variant=True)
NATIVE = Cloud("native", "native", BEDROCK_NAMES, prefix="/anthropic", service="bedrock")
VERTEX = Cloud(
    "vertex", "vertex", VERTEX_NAMES, ("claude-sonnet-4-5@20250929", "claude-opus-5-5@default"), prefix="/v1"
)
FOUNDRY = Cloud("foundry", "foundry", FOUNDRY_NAMES, ("my deployment", "команда"), prefix="/anthropic")
FOUNDRY_ENTRA = Cloud("foundry with Entra", "foundry", FOUNDRY_NAMES, prefix="/anthropic", is_variant=True)
CLAUDE_AWS = Cloud("claude-aws", "claude-aws", {}, service="aws-external-anthropic")
CLAUDE_AWS_KEY = Cloud("claude-aws with a key", "claude-aws", {}, is_variant=True)
CLAUDE_GCP = Cloud(
    "claude-gcp", "claude-gcp", {}, prefix=f"/v1/projects/{PROJECT}/locations/global/workspaces/{WORKSPACE}/invoke"
)

CLOUDS = (
    BEDROCK,
    BEDROCK_KEY,
    MANTLE,
    MANTLE_KEY,
    NATIVE,
    VERTEX,
    FOUNDRY,
    FOUNDRY_ENTRA,
    CLAUDE_AWS,
    CLAUDE_AWS_KEY,
    CLAUDE_GCP,
)


def keeping_nothing() -> Any:
    """An HTTP client with a connection for each request, so that none is left open when nobody closes it."""
    return anthropic.DefaultHttpxClient(limits=httpx2.Limits(max_keepalive_connections=0))


def plain_client(url: str, key: str, **headers: str) -> anthropic.Anthropic:
    """A client of the Claude API; names of headers are written with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items() if value}
    return anthropic.Anthropic(
        base_url=url, api_key=key, max_retries=0, timeout=20.0, default_headers=named, http_client=keeping_nothing()
    )


def sdk_client(cloud: Cloud, url: str, session_token: str | None = SESSION_TOKEN) -> Any:
    """The SDK's client for a cloud, pointed at `url` instead of the cloud's host."""
    base = url + cloud.prefix
    common: dict[str, Any] = {"max_retries": 0, "timeout": 20.0, "http_client": keeping_nothing()}
    aws = {"aws_access_key": ACCESS_KEY, "aws_secret_key": SECRET_KEY, "aws_region": REGION}
    if session_token:
        aws["aws_session_token"] = session_token
    match cloud.name:
        case "bedrock":
            return anthropic.AnthropicBedrock(base_url=base, **aws, **common)
        case "bedrock with a key":
            return anthropic.AnthropicBedrock(base_url=base, api_key=BEARER, aws_region=REGION, **common)
        case "mantle" | "native":  # the SDK has no client for the native endpoint of bedrock-runtime
            return anthropic.AnthropicBedrockMantle(base_url=base, **aws, **common)
        case "mantle with a key":
            return anthropic.AnthropicBedrockMantle(base_url=base, api_key=BEARER, aws_region=REGION, **common)
        case "vertex":
            return anthropic.AnthropicVertex(
                base_url=base, region=LOCATION, project_id=PROJECT, access_token=BEARER, **common
            )
        case "foundry":
            return anthropic.AnthropicFoundry(base_url=base, api_key=API_KEY, **common)
        case "foundry with Entra":
            return anthropic.AnthropicFoundry(base_url=base, azure_ad_token_provider=lambda: BEARER, **common)
        case "claude-aws":
            return anthropic.AnthropicAWS(base_url=base, workspace_id=WORKSPACE, **aws, **common)
        case "claude-aws with a key":
            return anthropic.AnthropicAWS(base_url=base, workspace_id=WORKSPACE, api_key=BEARER, **common)
        case "claude-gcp":
            return anthropic.AnthropicGoogleCloud(base_url=base, token_provider=lambda: BEARER, **common)
    raise ValueError(cloud.name)


def send(client: Any, asked: CloudInput, model: str) -> None:
    """Asks through any of the SDK's clients, as a program would, and reads the answer to its end.

    Raises anthropic.APIError.
    """
    messages = client.beta.messages if asked.betas else client.messages
    method = messages.count_tokens if asked.counts else messages.create
    known = inspect.signature(method).parameters
    body = {**asked.body, "model": model}
    named = {name: value for name, value in body.items() if name in known}
    if asked.betas:
        named["betas"] = list(asked.betas)
    more = {name: value for name, value in body.items() if name not in known}
    answer = method(**named, extra_body=more or None, extra_headers=asked.headers or None)
    if asked.streams:
        for _ in answer:
            pass


def provider_of(cloud: Cloud, url: str) -> dict[str, Any]:
    """A provider of the relay's configuration that is this cloud, at `url` instead of the cloud's host."""
    shared: dict[str, Any] = {"name": cloud.slug, "allow_private": True, "model_mapping": cloud.names}
    aws = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY, "session_token": SESSION_TOKEN}
    bearer = {"keys": [{"label": cloud.slug, "key": BEARER}]}
    with_credential = {"aws": aws} if cloud.service else bearer
    match cloud.face:
        case "bedrock":
            return {**shared, "type": "bedrock", "base_url": url, "region": REGION, **with_credential}
        case "mantle" | "native":
            base = f"{url}{cloud.prefix}"
            return {
                **shared,
                "type": "bedrock",
                "endpoint": cloud.face,
                "base_url": base,
                "region": REGION,
                **with_credential,
            }
        case "vertex":
            return {**shared, "type": "vertex", "base_url": url, "project": PROJECT, "location": LOCATION, **bearer}
        case "foundry":
            base = f"{url}{cloud.prefix}"
            if cloud is FOUNDRY_ENTRA:
                return {**shared, "type": "azure", "base_url": base, "auth_style": "bearer", **bearer}
            return {**shared, "type": "azure", "base_url": base, "keys": [{"label": cloud.slug, "key": API_KEY}]}
        case "claude-aws":
            style = {} if cloud.service else {"auth_style": "bearer"}
            more = {"region": REGION, "workspace": WORKSPACE, **style, **with_credential}
            return {**shared, "type": "claude-aws", "base_url": url, **more}
        case "claude-gcp":
            return {
                **shared,
                "type": "claude-gcp",
                "base_url": url,
                "project": PROJECT,
                "workspace": WORKSPACE,
                **bearer,
            }
    raise ValueError(cloud.name)


def demo_settings(cloud: Cloud) -> dict[str, Any]:
    """The demo provider as this cloud, open for the credentials here and for no others."""
    return {"cloud": cloud.face, "cloud_keys": KEYS, "good_keys": [BEARER, API_KEY], "cloud_region": REGION}
