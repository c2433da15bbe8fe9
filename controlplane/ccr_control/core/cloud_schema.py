"""How a cloud is named and how it lets the relay in: the parts of a provider that only clouds have.

Pure. Secrets that are written here stay in the control plane unless requests are signed with them; what a cloud hands out for a
short time is resolved from them (ccr_control/credentials) and handed to the nodes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ccr_control.core.scalars import FilePath
from ccr_control.core.secret import Credential
from ccr_control.core.section import Section

BedrockEndpoint = Literal["invoke", "native", "mantle"]
InferenceProfile = Literal["global", "us", "eu", "jp", "au", "apac", "us-gov", "none"]
EntraCredential = Literal["default", "client-secret", "managed-identity", "workload-identity", "cli"]

REGION = r"^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$"
LOCATION = r"^(global|us|eu|[a-z]+-[a-z]+[0-9]{1,2})$"
PROJECT = r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$"
RESOURCE = r"^[A-Za-z0-9][A-Za-z0-9-]{0,62}$"
WORKSPACE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
ROLE_ARN = r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$"
SESSION_NAME = r"^[\w+=,.@-]{2,64}$"
NAME = r"^[^\s\x00-\x1f\x7f]+( [^\s\x00-\x1f\x7f]+)*$"
IDENTITY = r"^[\w.-]{1,128}$"
ACCOUNT = r"^[a-z0-9-]+@[a-z0-9.-]+$"
SCOPE = r"^[a-z]+://[\w./-]+/\.default$"
AUTHORITY = r"^https://[A-Za-z0-9.-]+(:[0-9]+)?$"

Region = Annotated[str, StringConstraints(pattern=REGION)]
Location = Annotated[str, StringConstraints(pattern=LOCATION)]
Project = Annotated[str, StringConstraints(pattern=PROJECT)]
Resource = Annotated[str, StringConstraints(pattern=RESOURCE)]
Workspace = Annotated[str, StringConstraints(pattern=WORKSPACE)]


class AwsConfig(Section):
    """How AWS credentials are found. Empty: botocore's own chain (variables, files, SSO, containers, instance role)."""

    profile: Annotated[str, StringConstraints(pattern=NAME)] | None = None
    """Profile of the AWS configuration files."""
    access_key_id: Credential | None = None
    """A key written out, together with `secret_access_key`."""
    secret_access_key: Credential | None = None
    """The secret of `access_key_id`."""
    session_token: Credential | None = None
    """The token of a temporary `access_key_id`; nothing renews it."""
    role_arn: Annotated[str, StringConstraints(pattern=ROLE_ARN)] | None = None
    """A role to assume with the credentials that the other fields lead to."""
    external_id: Annotated[str, StringConstraints(pattern=NAME)] | None = None
    """What the role's trust policy asks for."""
    session_name: Annotated[str, StringConstraints(pattern=SESSION_NAME)] = "cc-relay"
    """How the assumed role's sessions appear in AWS's logs."""
    web_identity_token_file: FilePath | None = None
    """A token file to assume `role_arn` with, instead of credentials; read anew at each renewal."""

    @property
    def is_written_out(self) -> bool:
        """Whether requests are signed with just what is said here; else it must be found."""
        return self.access_key_id is not None and self.role_arn is None


class EntraConfig(Section):
    """How Entra ID tokens are got."""

    credential: EntraCredential = "default"
    """`default`: azure-identity's own chain (variables, workload and managed identity, command-line tools)."""
    tenant_id: Annotated[str, StringConstraints(pattern=IDENTITY)] | None = None
    """The tenant (directory). For `client-secret` required."""
    client_id: Annotated[str, StringConstraints(pattern=IDENTITY)] | None = None
    """The application, or the user-assigned managed identity."""
    client_secret: Credential | None = None
    """The application's secret, for `client-secret`."""
    token_file: FilePath | None = None
    """The token file of `workload-identity`. Absent: as `AZURE_FEDERATED_TOKEN_FILE` says."""
    authority: Annotated[str, StringConstraints(pattern=AUTHORITY)] | None = None
    """Where tokens are asked for. Absent: the public cloud's."""
    scope: Annotated[str, StringConstraints(pattern=SCOPE)] = "https://ai.azure.com/.default"
    """What tokens are for. Older resources want `https://cognitiveservices.azure.com/.default`."""


class GoogleConfig(Section):
    """How Google tokens are got. Empty: Application Default Credentials."""

    credentials_file: FilePath | None = None
    """A service account's key, or the configuration of workload identity federation or impersonation."""
    impersonate: Annotated[str, StringConstraints(pattern=ACCOUNT)] | None = None
    """Service account to act as, with the credentials found."""
    delegates: tuple[Annotated[str, StringConstraints(pattern=ACCOUNT)], ...] = Field(default=())
    """Service accounts in between, each allowed to act as the next."""
