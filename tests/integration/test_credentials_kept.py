"""A real ccr-control with clouds: what nodes get while credentials are found late, are renewed, fail, end and come back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ccr_rpc.v1 import providers_pb2, providers_pb2_grpc, snapshot_pb2
from support.control import running_control, until
from support.fake_node import FakeNode
from support.identity import Identity, running_identity, service_account

CONFIG = """\
version: 1
control: {listen: "127.0.0.1:0"}
server: {auth: {mode: none}}
providers:
  - name: bedrock
    type: bedrock
    region: us-east-1
    aws: {access_key_id: AKIDEXAMPLE, secret_access_key: long-lived-secret, role_arn: "arn:aws:iam::123456789012:role/relay"}
  - {name: vertex, type: vertex, project: my-project}
  - {name: foundry, type: azure, resource: r, entra: {credential: managed-identity}}
  - {name: anthropic, type: anthropic, keys: [{label: main, key: sk-ant-api03-not-a-real-key}]}
"""


@pytest.fixture
def cloud() -> Iterator[Identity]:
    with running_identity() as identity:
        yield identity


def env(cloud: Identity, directory: Path) -> dict[str, str]:
    """Where the libraries find the fake, and nothing of this machine."""
    address = cloud.origin.removeprefix("http://")
    return {
        "HOME": str(directory),
        "CLOUDSDK_CONFIG": str(directory / "gcloud"),
        "AWS_ENDPOINT_URL_STS": cloud.origin,
        "GCE_METADATA_HOST": address,
        "GCE_METADATA_IP": address,
        "IDENTITY_ENDPOINT": f"{cloud.origin}/msi/token",
        "IDENTITY_HEADER": "of-this-app",
        "NO_PROXY": "127.0.0.1",
    }


def keys(snapshot: snapshot_pb2.Snapshot) -> dict[str, snapshot_pb2.Key]:
    return {provider.name: key for provider in snapshot.providers for key in provider.keys}


async def test_the_first_snapshot_holds_what_clouds_hand_out(cloud: Identity, tmp_path: Path) -> None:
    """And neither log nor shown configuration holds any of it."""
    async with running_control(tmp_path, CONFIG, env(cloud, tmp_path)) as control, control.channel() as channel:
        async with FakeNode(channel).watching() as node:
            snapshot = await node.got(lambda one: len(keys(one)) == 4)
        shown = await providers_pb2_grpc.ProviderServiceStub(channel).ListProviders(
            providers_pb2.ListProvidersRequest()
        )
        assert await control.stop() == 0
        log = control.log_text()

    found = keys(snapshot)
    assert found["bedrock"].aws.access_key_id.startswith("ASIA-KEY-")
    assert found["bedrock"].aws.session_token.startswith("sts-token-")
    assert found["bedrock"].expires_at.seconds > snapshot.created_at.seconds
    assert found["vertex"].secret.startswith("google-token-")
    assert found["foundry"].secret.startswith("managed-token-")
    assert "long-lived-secret" not in str(snapshot)
    assert [one.usable for provider in shown.providers for one in provider.credentials] == [True, True, True]
    for secret in ("long-lived-secret", "sts-secret", "sts-token", "google-token", "managed-token"):
        assert secret not in log
        assert secret not in str(shown)


async def test_a_cloud_that_hangs_holds_nothing_up(cloud: Identity, tmp_path: Path) -> None:
    """The start serves what it can; keys appear when they are found; the end does not wait for the cloud."""
    cloud.is_hanging = True
    async with (
        running_control(tmp_path, CONFIG, env(cloud, tmp_path)) as control,
        control.channel() as channel,
        FakeNode(channel).watching() as node,
    ):
        first = await node.got()
        assert set(keys(first)) == {"anthropic"}
        cloud.let_go.set()
        await node.got(lambda one: len(keys(one)) == 4)


async def test_the_end_does_not_wait_for_a_cloud(cloud: Identity, tmp_path: Path) -> None:
    cloud.is_hanging = True
    async with running_control(tmp_path, CONFIG, env(cloud, tmp_path)) as control:
        assert cloud.under_way
        assert await control.stop(within_s=5) == 0
        assert cloud.under_way, "it hangs still"


async def test_a_key_is_renewed_kept_over_failures_dropped_at_its_end_and_comes_back(
    cloud: Identity, tmp_path: Path
) -> None:
    """The whole life of a short-lived token, in seconds instead of hours."""
    cloud.lifetime_s = 6
    file = service_account(tmp_path, f"{cloud.origin}/token")
    config = f"""\
version: 1
control: {{listen: "127.0.0.1:0"}}
server: {{auth: {{mode: none}}}}
providers:
  - {{name: vertex, type: vertex, project: my-project, google: {{credentials_file: "{file}"}}}}
"""

    def token(snapshot: snapshot_pb2.Snapshot) -> str:
        return keys(snapshot)["vertex"].secret if keys(snapshot) else ""

    async with running_control(tmp_path, config, env(cloud, tmp_path)) as control, control.channel() as channel:
        async with FakeNode(channel).watching() as node:
            await node.got(lambda one: token(one) == "google-token-1")
            await node.got(lambda one: token(one) == "google-token-2")
            cloud.is_refusing = True
            await until(lambda: control.event("credential_not_renewed"), "warned while there is time")
            assert token(node.snapshots[-1])
            await until(lambda: token(node.snapshots[-1]) == "", "dropped at its end", 20)
            assert control.event("credential_expired")
            shown = await providers_pb2_grpc.ProviderServiceStub(channel).ListProviders(
                providers_pb2.ListProvidersRequest()
            )
            (credential,) = shown.providers[0].credentials
            assert not credential.usable
            assert "not you" in credential.problem
            cloud.is_refusing = False
            last = len(node.snapshots)
            await until(lambda: len(node.snapshots) > last and token(node.snapshots[-1]), "it comes back", 30)
        tokens = [token(one) for one in node.snapshots]

    assert [one for one in tokens if one] == sorted(one for one in tokens if one), "never an older one"
    assert cloud.most_under_way == 1, "one search at a time"


async def test_a_provider_that_is_added_later_gets_its_key(cloud: Identity, tmp_path: Path) -> None:
    """A reload is not held up by a cloud, either."""
    base = CONFIG.splitlines()
    without = "\n".join([*base[:4], base[-1]]) + "\n"
    async with (
        running_control(tmp_path, without, env(cloud, tmp_path)) as control,
        control.channel() as channel,
        FakeNode(channel).watching() as node,
    ):
        assert set(keys(await node.got())) == {"anthropic"}
        assert cloud.asked == []
        control.config_path.write_text(CONFIG)
        assert control.process is not None
        os.kill(control.process.pid, signal.SIGHUP)
        await node.got(lambda one: len(keys(one)) == 4)
