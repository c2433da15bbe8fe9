"""Microsoft Entra ID: tokens by azure-identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import azure.core.exceptions
import azure.identity

from ccr_control.core.cloud_schema import EntraConfig
from ccr_control.core.material import Material
from ccr_control.credentials.searching import NotFound, told


def search(config: EntraConfig) -> Material:
    """A token. Raises NotFound."""
    try:
        with _credential(config) as credential:
            token = credential.get_token(config.scope)
    except (azure.core.exceptions.AzureError, OSError, ValueError) as error:
        raise NotFound(told(error)) from None
    return Material(token.token, float(token.expires_on))


def _credential(config: EntraConfig) -> Any:
    """A credential of its own for each search: it has nothing in a cache."""
    where = _where(config)
    match config.credential:
        case "client-secret":
            assert config.client_secret is not None, "crosschecked"
            secret = config.client_secret.reveal()
            return azure.identity.ClientSecretCredential(
                config.tenant_id or "", config.client_id or "", secret, **where
            )
        case "managed-identity":
            return azure.identity.ManagedIdentityCredential(client_id=config.client_id)
        case "workload-identity":
            file = str(Path(config.token_file).expanduser()) if config.token_file is not None else None
            return azure.identity.WorkloadIdentityCredential(
                tenant_id=config.tenant_id, client_id=config.client_id, token_file_path=file, **where
            )
        case "cli":
            return azure.identity.AzureCliCredential(tenant_id=config.tenant_id or "")
        case "default":
            given = {"managed_identity_client_id": config.client_id, "workload_identity_client_id": config.client_id}
            return azure.identity.DefaultAzureCredential(**(given if config.client_id else {}), **where)


def _where(config: EntraConfig) -> dict[str, Any]:
    """An authority of one's own is not asked whether it is known to Microsoft."""
    if config.authority is None:
        return {}
    return {"authority": config.authority, "disable_instance_discovery": True}
