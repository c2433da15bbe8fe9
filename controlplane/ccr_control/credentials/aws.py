"""AWS: what botocore's chain leads to, and roles assumed with it.

A session of its own for each search, so that files and variables are read anew and nothing old comes out of a cache.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import botocore.exceptions
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config

from ccr_control.core.cloud_schema import AwsConfig
from ccr_control.core.material import AwsKey, Material
from ccr_control.credentials.searching import NotFound, told

_TIMES = {"connect_timeout": 5, "read_timeout": 20, "retries": {"total_max_attempts": 2, "mode": "standard"}}


def search(aws: AwsConfig, region: str) -> Material:
    """What to sign with. Raises NotFound."""
    try:
        session = botocore.session.Session(profile=aws.profile)
        if aws.role_arn is not None and aws.web_identity_token_file is not None:
            return _by_web_identity(session, aws, region)
        if aws.access_key_id is not None and aws.secret_access_key is not None:
            token = aws.session_token.reveal() if aws.session_token is not None else None
            session.set_credentials(aws.access_key_id.reveal(), aws.secret_access_key.reveal(), token)
        session.set_config_variable("region", region)
        return _by_role(session, aws, region) if aws.role_arn is not None else _by_chain(session)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError, ValueError) as error:
        raise NotFound(told(error)) from None


def _by_chain(session: botocore.session.Session) -> Material:
    found = session.get_credentials()
    if found is None:
        raise NotFound("botocore's chain found no AWS credentials: no variables, profile, container or instance role")
    key = found.get_frozen_credentials()
    if not key.access_key or not key.secret_key:
        raise NotFound("botocore's chain found AWS credentials without a key")
    # There is no public name for it; credentials without an end do not have it.
    expires_at: datetime | None = getattr(found, "_expiry_time", None)
    return Material(
        AwsKey(key.access_key, key.secret_key, key.token or ""),
        expires_at.timestamp() if expires_at is not None else None,
    )


def _by_role(session: botocore.session.Session, aws: AwsConfig, region: str) -> Material:
    if session.get_credentials() is None:
        raise NotFound(f"botocore's chain found no AWS credentials to assume {aws.role_arn} with")
    sts = session.create_client("sts", region_name=region, config=Config(**_TIMES))
    more = {"ExternalId": aws.external_id} if aws.external_id is not None else {}
    return _material(sts.assume_role(RoleArn=aws.role_arn, RoleSessionName=aws.session_name, **more))


def _by_web_identity(session: botocore.session.Session, aws: AwsConfig, region: str) -> Material:
    token = Path(aws.web_identity_token_file or "").expanduser().read_text().strip()
    sts = session.create_client("sts", region_name=region, config=Config(signature_version=UNSIGNED, **_TIMES))
    return _material(
        sts.assume_role_with_web_identity(
            RoleArn=aws.role_arn, RoleSessionName=aws.session_name, WebIdentityToken=token
        )
    )


def _material(answer: dict[str, Any]) -> Material:
    given = answer["Credentials"]
    key = AwsKey(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    return Material(key, given["Expiration"].timestamp())
