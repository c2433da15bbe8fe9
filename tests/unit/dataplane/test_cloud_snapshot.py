"""Clouds in a snapshot: what the contract says of them, and what of it must not be served."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ccr_data.core.errors import SnapshotInvalid
from ccr_data.core.records import Reason
from ccr_data.core.routing import Cooldowns
from ccr_data.core.snapshot import (
    NEVER_S,
    AuthStyle,
    AwsCredentials,
    AwsSigning,
    Key,
    ProviderType,
    Target,
    WireFormat,
    target,
)
from ccr_data.shell.wire import to_snapshot
from ccr_rpc.v1 import snapshot_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp
from support.node_values import snapshot_message

SECRET = "wJalrXUtnFEMI-EXAMPLE"


def signed() -> pb.Snapshot:
    """A snapshot whose provider is Bedrock, with a role's credentials."""
    message = snapshot_message(1)
    provider = message.providers[0]
    provider.type = pb.PROVIDER_TYPE_BEDROCK
    provider.wire_format = pb.WIRE_FORMAT_BEDROCK_INVOKE
    provider.auth_style = pb.AUTH_STYLE_SIGV4
    provider.aws_signing.MergeFrom(pb.AwsSigning(region="us-east-1", service="bedrock"))
    provider.betas.MergeFrom(pb.BetaPolicy(forward_all=True, renamed={"a": "b"}, dropped=["c"]))
    key = provider.keys[0]
    key.secret = ""
    key.aws.MergeFrom(pb.AwsCredentials(access_key_id="AKID", secret_access_key=SECRET, session_token="token"))
    key.expires_at.MergeFrom(Timestamp(seconds=1_790_000_000, nanos=500_000_000))
    return message


def test_everything_arrives() -> None:
    provider = to_snapshot(signed()).providers["p0"]
    (key,) = provider.keys

    assert (provider.type, provider.wire_format) == (ProviderType.BEDROCK, WireFormat.BEDROCK_INVOKE)
    assert (provider.auth_style, provider.aws_signing) == (AuthStyle.SIGV4, AwsSigning("us-east-1", "bedrock"))
    assert (key.aws, key.expires_at_s) == (AwsCredentials("AKID", SECRET, "token"), 1_790_000_000.5)
    assert [provider.takes_beta(beta) for beta in "abc"] == [True, True, False]
    assert provider.is_cloud
    assert provider.edits_lines


def test_what_is_not_said_is_as_it_was() -> None:
    """A provider without a cloud costs nothing of it."""
    provider = to_snapshot(snapshot_message(1)).providers["p0"]

    assert provider.wire_format is WireFormat.ANTHROPIC
    assert provider.keys[0].expires_at_s == NEVER_S
    assert not target(provider, provider.keys[0], None).is_cloud
    assert to_snapshot(snapshot_message(1)).routed("m").only_target is not None


def test_credentials_are_never_shown() -> None:
    """What is logged of a value must not hold them."""
    provider = to_snapshot(signed()).providers["p0"]

    assert SECRET not in repr(provider)
    assert "token" not in repr(provider.keys[0].aws)
    assert SECRET.encode() not in target(provider, provider.keys[0], None).header_lines


def _no_region(message: pb.Snapshot) -> None:
    message.providers[0].aws_signing.region = ""


def _slashed_service(message: pb.Snapshot) -> None:
    message.providers[0].aws_signing.service = "bedrock/x"


def _no_secret(message: pb.Snapshot) -> None:
    message.providers[0].keys[0].aws.secret_access_key = ""


def _token_with_a_newline(message: pb.Snapshot) -> None:
    message.providers[0].keys[0].aws.session_token = f"{SECRET}\r\nx-evil: 1"


def _beta_with_a_newline(message: pb.Snapshot) -> None:
    message.providers[0].betas.renamed["a"] = "b\r\nx-evil: 1"


def _unknown_format(message: pb.Snapshot) -> None:
    message.providers[0].wire_format = 99  # type: ignore[assignment]  # of a newer control plane


def _unknown_type(message: pb.Snapshot) -> None:
    message.providers[0].type = 99  # type: ignore[assignment]  # of a newer control plane


@pytest.mark.parametrize(
    "spoil",
    [
        _no_region,
        _slashed_service,
        _no_secret,
        _token_with_a_newline,
        _beta_with_a_newline,
        _unknown_format,
        _unknown_type,
    ],
)
def test_what_could_not_be_sent_is_not_served(spoil: Callable[[pb.Snapshot], None]) -> None:
    """The reason is for the operator and holds no secret."""
    message = signed()
    spoil(message)

    with pytest.raises(SnapshotInvalid, match="provider p0") as refused:
        to_snapshot(message)
    assert SECRET not in str(refused.value)


def test_azure_gets_its_key_in_both_headers() -> None:
    message = snapshot_message(1, secret="azure-key")
    message.providers[0].type = pb.PROVIDER_TYPE_AZURE
    message.providers[0].auth_style = pb.AUTH_STYLE_AZURE
    provider = to_snapshot(message).providers["p0"]

    assert target(provider, provider.keys[0], None).header_lines.endswith(
        b"x-api-key: azure-key\r\napi-key: azure-key\r\n"
    )


def at(secret: str) -> Target:
    provider = to_snapshot(snapshot_message(1, secret=secret)).providers["p0"]
    return target(provider, provider.keys[0], None)


def test_a_key_with_another_secret_does_not_rest_for_what_the_one_before_was_refused() -> None:
    """A renewed token keeps its label."""
    cooldowns = Cooldowns()
    cooldowns.note(at("old"), Reason.KEY_REFUSED, 60.0)

    assert cooldowns.is_cooling(at("old"), 1.0)
    assert cooldowns.rest_s(at("old"), 1.0) == 59.0
    assert cooldowns.rest_s(at("new"), 1.0) == 0.0
    assert not cooldowns.is_cooling(at("new"), 1.0)


def test_a_rate_limit_rests_also_with_another_secret() -> None:
    """It is the account's."""
    cooldowns = Cooldowns()
    cooldowns.note(at("old"), Reason.RATE_LIMITED, 60.0)

    assert cooldowns.is_cooling(at("new"), 1.0)


def test_what_was_refused_is_forgotten_with_the_rest() -> None:
    cooldowns = Cooldowns()
    cooldowns.note(at("old"), Reason.KEY_REFUSED, 60.0)
    cooldowns.clear(at("old"))
    cooldowns.note(at("old"), Reason.RATE_LIMITED, 60.0)

    assert cooldowns.is_cooling(at("new"), 1.0)


def test_a_renewed_token_stands_for_the_same_account() -> None:
    """What rests for a rate limit goes on resting; another static key may be another account."""
    first, second = (Key("adc", secret, "", expires_at_s=9.0) for secret in ("token-1", "token-2"))

    assert first.holder == second.holder
    assert first.material != second.material
    assert Key("k", "sk-1", "").holder != Key("k", "sk-2", "").holder
    assert (
        Key("k", "", "", aws=AwsCredentials("A", "s")).holder != Key("k", "", "", aws=AwsCredentials("B", "s")).holder
    )
