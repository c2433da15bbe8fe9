"""Which search finds a key's credential, and how its failures are told."""

from __future__ import annotations

import re
from collections.abc import Callable

from ccr_control.core.cloud_schema import AwsConfig, EntraConfig, GoogleConfig
from ccr_control.core.material import Material
from ccr_control.core.provider_schema import KeyConfig, ProviderConfig

MAX_PROBLEM_CHARS = 300

_SECRET_LIKE = re.compile(r"[A-Za-z0-9+=_]{32,}|eyJ[A-Za-z0-9._-]+")  # no `-` and `/`: ids and paths may be shown

Search = Callable[[], Material]
"""Finds a credential anew each time. Blocks, for minutes at worst; raises NotFound."""


class NotFound(Exception):
    """A credential could not be found. Its text is for an operator and holds no secret."""


def search_for(provider: ProviderConfig, key: KeyConfig) -> Search | None:
    """How a key's credential is found; None: it is written out. `provider` is filled."""
    match key.cloud:
        case AwsConfig(is_written_out=False) as aws:
            return lambda: _aws(aws, provider.region or "us-east-1")
        case EntraConfig() as entra:
            return lambda: _entra(entra)
        case GoogleConfig() as google:
            return lambda: _google(google)
    return None


def told(error: BaseException) -> str:
    """What an error says, short, on one line, without whatever looks like a secret."""
    text = " ".join(_SECRET_LIKE.sub("***", str(error)).split())
    return f"{type(error).__name__}: {text}"[:MAX_PROBLEM_CHARS]


def _aws(aws: AwsConfig, region: str) -> Material:
    from ccr_control.credentials import aws as cloud  # noqa: PLC0415 - botocore takes a while to import

    return cloud.search(aws, region)


def _entra(entra: EntraConfig) -> Material:
    from ccr_control.credentials import entra as cloud  # noqa: PLC0415 - azure-identity takes a while to import

    return cloud.search(entra)


def _google(google: GoogleConfig) -> Material:
    from ccr_control.credentials import google as cloud  # noqa: PLC0415 - google-auth takes a while to import

    return cloud.search(google)
