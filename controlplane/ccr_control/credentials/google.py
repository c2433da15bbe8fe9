"""Google: Application Default Credentials, service accounts, workload identity federation, impersonation."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google.auth
import google.auth.exceptions
import requests
from google.auth import impersonated_credentials
from google.auth.credentials import with_scopes_if_required
from google.auth.transport.requests import Request

from ccr_control.core.cloud_schema import GoogleConfig
from ccr_control.core.material import Material
from ccr_control.credentials.searching import NotFound, told

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)


def search(config: GoogleConfig) -> Material:
    """An access token. Raises NotFound."""
    try:
        with requests.Session() as session:
            request = Request(session)
            credentials = _credentials(config, request)
            credentials.refresh(request)
    except (google.auth.exceptions.GoogleAuthError, requests.RequestException, OSError, ValueError) as error:
        raise NotFound(told(error)) from None
    if not credentials.token:
        raise NotFound("the Google credentials gave no token")
    return Material(credentials.token, _seconds(credentials.expiry))


def _credentials(config: GoogleConfig, request: Request) -> Any:
    with warnings.catch_warnings():
        # Both warn of files from elsewhere and of users' own credentials: what is configured here is the operator's.
        warnings.simplefilter("ignore")
        # Scopes come afterwards: with them, the project of a federated workload would be asked for at Google, which nobody needs.
        if config.credentials_file is not None:
            file = str(Path(config.credentials_file).expanduser())
            found, _ = google.auth.load_credentials_from_file(file, request=request)  # type: ignore[no-untyped-call]  # half typed
        else:
            found, _ = google.auth.default(request=request)
    scoped = with_scopes_if_required(found, list(SCOPES))  # type: ignore[no-untyped-call]  # half typed
    if config.impersonate is None:
        return scoped
    return impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]  # half typed
        source_credentials=scoped,
        target_principal=config.impersonate,
        target_scopes=list(SCOPES),
        delegates=list(config.delegates) or None,
    )


def _seconds(expiry: datetime | None) -> float | None:
    """google-auth's times are UTC without saying so."""
    if expiry is None:
        return None
    return (expiry if expiry.tzinfo is not None else expiry.replace(tzinfo=UTC)).timestamp()
