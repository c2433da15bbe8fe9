"""Changes at run time: what is answered, kept, told, and served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
from ccr_rpc.v1 import (
    config_pb2,
    config_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    fleet_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    providers_pb2,
    providers_pb2_grpc,
    snapshot_pb2,
)
from support.control import Control, running_control, shared_control, until
from support.fake_node import FakeNode

CONFIG = """\
version: 1
control: {listen: "127.0.0.1:0"}
routing:
  strategy: round-robin
  routes: [{name: haiku, match: {model: "claude-haiku-*"}, to: [{provider: zai}]}]
providers:
  - name: anthropic
    type: anthropic
    keys: [{label: team-a, key: sk-ant-api03-not-a-real-key}, {label: team-b, key: sk-ant-api03-not-a-real-either}]
  - {name: zai, type: zai, weight: 3, keys: [{label: zai, key: not-a-real-zai-key}]}
  - {name: local, type: ollama, base_url: "http://localhost:11434"}
"""
ADDED_SECRET = "sk-ant-api03-added-at-run-time"
ROTATED_SECRET = "sk-ant-api03-rotated-at-run-time"

ENABLED = providers_pb2.PROVIDER_STATE_ENABLED
DRAINING = providers_pb2.PROVIDER_STATE_DRAINING
DISABLED = providers_pb2.PROVIDER_STATE_DISABLED


@dataclass
class Api:
    """Everything that can be asked of a control plane here."""

    control: Control
    providers: providers_pb2_grpc.ProviderServiceStub
    keys: keys_pb2_grpc.KeyServiceStub
    events: events_pb2_grpc.EventServiceStub
    config: config_pb2_grpc.ConfigServiceStub
    fleet: fleet_pb2_grpc.FleetServiceStub
    channel: grpc.aio.Channel

    async def set_state(
        self, provider: str, state: providers_pb2.ProviderState.ValueType, etag: str = ""
    ) -> providers_pb2.ProviderResponse:
        request = providers_pb2.SetProviderStateRequest(provider=provider, state=state, etag=etag)
        return await self.providers.SetProviderState(request)

    async def status(self, provider: str) -> providers_pb2.ProviderStatus:
        listed = await self.providers.ListProviders(providers_pb2.ListProvidersRequest())
        return next(one for one in listed.providers if one.name == provider)

    async def key(self, provider: str, label: str) -> keys_pb2.KeyStatus:
        listed = await self.keys.ListKeys(keys_pb2.ListKeysRequest(provider=provider))
        return next(one for one in listed.keys if one.label == label)

    async def audit(self) -> list[events_pb2.Event]:
        """Oldest first."""
        request = events_pb2.ListEventsRequest(kind=events_pb2.EVENT_KIND_AUDIT, page_size=1000)
        return list(reversed((await self.events.ListEvents(request)).events))

    async def served(self) -> snapshot_pb2.Snapshot:
        """What a node that joins now gets."""
        async with FakeNode(self.channel, node_id="looks").watching() as node:
            return await node.got()


@asynccontextmanager
async def talking_to(control: Control) -> AsyncIterator[Api]:
    async with control.channel() as channel:
        yield Api(
            control,
            providers_pb2_grpc.ProviderServiceStub(channel),
            keys_pb2_grpc.KeyServiceStub(channel),
            events_pb2_grpc.EventServiceStub(channel),
            config_pb2_grpc.ConfigServiceStub(channel),
            fleet_pb2_grpc.FleetServiceStub(channel),
            channel,
        )


@asynccontextmanager
async def changing(directory: Path, config: str = CONFIG) -> AsyncIterator[Api]:
    async with running_control(directory, config) as control, talking_to(control) as api:
        yield api


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """For the tests that change nothing."""
    with shared_control(tmp_path_factory.mktemp("control"), CONFIG) as control:
        yield control


def of(snapshot: snapshot_pb2.Snapshot, provider: str) -> snapshot_pb2.Provider:
    return next(one for one in snapshot.providers if one.name == provider)


def key_of(snapshot: snapshot_pb2.Snapshot, provider: str, label: str) -> snapshot_pb2.Key:
    return next(one for one in of(snapshot, provider).keys if one.label == label)


async def refused(call: grpc.aio.UnaryUnaryCall, code: grpc.StatusCode, reason: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code
    assert dict(caught.value.trailing_metadata() or ()).get("ccr-reason") == reason
    return caught.value.details() or ""


async def test_a_state_is_served_when_the_call_returns(tmp_path: Path) -> None:
    async with changing(tmp_path) as api:
        disabled = await api.set_state("zai", DISABLED)
        snapshot = await api.served()
        assert snapshot.version == disabled.snapshot_version
        assert not of(snapshot, "zai").enabled
        assert (disabled.provider.state, disabled.provider.enabled) == (DISABLED, False)
        assert disabled.provider.changed == ["state"]

        draining = await api.set_state("zai", DRAINING, disabled.provider.etag)
        snapshot = await api.served()
        assert of(snapshot, "zai").enabled
        assert of(snapshot, "zai").draining
        assert draining.provider.state == DRAINING

        enabled = await api.set_state("zai", ENABLED)
        snapshot = await api.served()
        assert of(snapshot, "zai").enabled
        assert not of(snapshot, "zai").draining
        assert enabled.provider.changed == []


async def test_all_providers_may_be_disabled(tmp_path: Path) -> None:
    """A snapshot without candidates would be refused by every node, and nothing would change."""
    async with changing(tmp_path) as api:
        for name in ("anthropic", "zai", "local"):
            await api.set_state(name, DISABLED)
        assert not any(one.enabled for one in (await api.served()).providers)


async def test_what_is_out_of_date_changes_nothing(tmp_path: Path) -> None:
    async with changing(tmp_path) as api:
        before = (await api.status("zai")).etag
        await api.providers.UpdateProvider(providers_pb2.UpdateProviderRequest(provider="zai", weight=5, etag=before))
        request = providers_pb2.UpdateProviderRequest(provider="zai", weight=7, etag=before)
        await refused(api.providers.UpdateProvider(request), grpc.StatusCode.ABORTED, "ETAG_OUT_OF_DATE")
        assert (await api.status("zai")).weight == 5
        assert len(await api.audit()) == 1


async def test_wrong_requests_say_what_is_wrong(unchanged: Control) -> None:
    async with talking_to(unchanged) as api:
        bad, absent = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
        await refused(
            api.providers.SetProviderState(providers_pb2.SetProviderStateRequest(provider="zai")), bad, "STATE_MISSING"
        )
        await refused(
            api.providers.SetProviderState(providers_pb2.SetProviderStateRequest(provider="x", state=DISABLED)),
            absent,
            "NO_SUCH_PROVIDER",
        )
        for weight in (0, -1, 1_000_001):
            request = providers_pb2.UpdateProviderRequest(provider="zai", weight=weight)
            await refused(api.providers.UpdateProvider(request), bad, "OUT_OF_RANGE")
        await refused(
            api.providers.SetStrategy(
                providers_pb2.SetStrategyRequest(route="none", strategy=snapshot_pb2.STRATEGY_FAILOVER)
            ),
            absent,
            "NO_SUCH_ROUTE",
        )
        for secret in ("", "with blank", "ünï", "line\nbreak"):
            told = await refused(
                api.keys.AddKey(keys_pb2.AddKeyRequest(provider="zai", label="x", secret=secret)),
                bad,
                "SECRET_MALFORMED",
            )
            assert not secret or secret not in told
        await refused(
            api.keys.AddKey(keys_pb2.AddKeyRequest(provider="zai", label="a\nb", secret="s" * 20)),
            bad,
            "LABEL_MALFORMED",
        )
        await refused(
            api.keys.AddKey(keys_pb2.AddKeyRequest(provider="local", label="x", secret="s" * 20)),
            grpc.StatusCode.FAILED_PRECONDITION,
            "TAKES_NO_SECRET",
        )
        await refused(api.keys.RemoveKey(keys_pb2.RemoveKeyRequest(provider="zai", label="zai")), absent, "NOT_CHANGED")
        assert await api.audit() == []


async def test_share_and_strategy_reach_the_routes(tmp_path: Path) -> None:
    async with changing(tmp_path) as api:
        await api.providers.UpdateProvider(providers_pb2.UpdateProviderRequest(provider="zai", weight=9, priority=4))
        await api.providers.SetStrategy(providers_pb2.SetStrategyRequest(strategy=snapshot_pb2.STRATEGY_FAILOVER))
        await api.providers.SetStrategy(
            providers_pb2.SetStrategyRequest(route="haiku", strategy=snapshot_pb2.STRATEGY_LEAST_LOADED)
        )
        haiku, default = (await api.served()).routes
        assert (haiku.strategy, default.strategy) == (
            snapshot_pb2.STRATEGY_LEAST_LOADED,
            snapshot_pb2.STRATEGY_FAILOVER,
        )
        assert [(one.weight, one.priority) for one in haiku.candidates] == [(9, 4)]


async def test_keys_come_change_and_go(tmp_path: Path) -> None:
    async with changing(tmp_path) as api:
        add = keys_pb2.AddKeyRequest(provider="anthropic", label="new", secret=ADDED_SECRET, weight=3)
        add.limits.requests = 50
        added = await api.keys.AddKey(add)
        assert added.key.origin == keys_pb2.KeyStatus.ORIGIN_ADDED
        again = await api.keys.AddKey(add)
        assert again.key.etag == added.key.etag
        served = key_of(await api.served(), "anthropic", "new")
        assert (served.secret, served.weight, served.limits.requests) == (ADDED_SECRET, 3, 50)
        add.secret = ROTATED_SECRET
        await refused(api.keys.AddKey(add), grpc.StatusCode.ALREADY_EXISTS, "LABEL_TAKEN")

        rotated = await api.keys.RotateKey(
            keys_pb2.RotateKeyRequest(provider="anthropic", label="team-a", secret=ROTATED_SECRET)
        )
        assert rotated.key.origin == keys_pb2.KeyStatus.ORIGIN_CONFIG_CHANGED
        assert key_of(await api.served(), "anthropic", "team-a").secret == ROTATED_SECRET

        disabled = await api.keys.UpdateKey(
            keys_pb2.UpdateKeyRequest(provider="anthropic", label="team-b", state=snapshot_pb2.KEY_STATE_DISABLED)
        )
        assert disabled.key.state == snapshot_pb2.KEY_STATE_DISABLED
        assert key_of(await api.served(), "anthropic", "team-b").secret == ""

        for label in ("new", "team-a", "team-b"):
            await api.keys.RemoveKey(keys_pb2.RemoveKeyRequest(provider="anthropic", label=label))
        keys = of(await api.served(), "anthropic").keys
        assert [(key.label, key.secret, key.state) for key in keys] == [
            ("team-a", "sk-ant-api03-not-a-real-key", snapshot_pb2.KEY_STATE_ACTIVE),
            ("team-b", "sk-ant-api03-not-a-real-either", snapshot_pb2.KEY_STATE_ACTIVE),
        ]
        actions = [event.action for event in await api.audit()]
        assert actions == ["key.add", "key.rotate", "key.update", "key.remove", "key.remove", "key.remove"]


async def add_and_write_down(api: Api) -> None:
    """A key comes by a command, and then the file has it, too."""
    await api.keys.AddKey(keys_pb2.AddKeyRequest(provider="zai", label="new", secret=ADDED_SECRET))
    zai = "{label: zai, key: not-a-real-zai-key}"
    api.control.config_path.write_text(CONFIG.replace(zai, f"{zai}, {{label: new, key: {ADDED_SECRET}}}"))
    await api.config.ReloadConfig(config_pb2.ReloadConfigRequest())


async def test_an_added_key_that_was_put_into_the_file_can_still_be_changed(tmp_path: Path) -> None:
    """Keys come by a command, and move into the file later. One that leaks then has to be gone when the command says so."""
    async with changing(tmp_path) as api:
        await add_and_write_down(api)
        disabled = await api.keys.UpdateKey(
            keys_pb2.UpdateKeyRequest(provider="zai", label="new", state=snapshot_pb2.KEY_STATE_DISABLED)
        )
        assert disabled.key.state == snapshot_pb2.KEY_STATE_DISABLED
        assert key_of(await api.served(), "zai", "new").secret == ""
        await api.keys.UpdateKey(
            keys_pb2.UpdateKeyRequest(provider="zai", label="new", state=snapshot_pb2.KEY_STATE_ACTIVE)
        )
        rotated = await api.keys.RotateKey(
            keys_pb2.RotateKeyRequest(provider="zai", label="new", secret=ROTATED_SECRET)
        )
        assert rotated.key.origin == keys_pb2.KeyStatus.ORIGIN_CONFIG_CHANGED
        assert key_of(await api.served(), "zai", "new").secret == ROTATED_SECRET
        shown = await api.config.GetOverlay(config_pb2.GetOverlayRequest())
        assert [(one.resource, one.field) for one in shown.entries] == [("keys/zai/new", "secret")]


async def test_an_added_key_that_was_put_into_the_file_can_be_rotated_first(tmp_path: Path) -> None:
    """Another order of the same: nothing was changed of it since the file has it."""
    async with changing(tmp_path) as api:
        await add_and_write_down(api)
        await api.keys.RotateKey(keys_pb2.RotateKeyRequest(provider="zai", label="new", secret=ROTATED_SECRET))
        assert key_of(await api.served(), "zai", "new").secret == ROTATED_SECRET


async def test_a_provider_without_a_usable_key_gets_no_request(tmp_path: Path) -> None:
    async with changing(tmp_path) as api:
        request = keys_pb2.UpdateKeyRequest(provider="zai", label="zai", state=snapshot_pb2.KEY_STATE_DISABLED)
        await api.keys.UpdateKey(request)
        assert not of(await api.served(), "zai").enabled
        assert (await api.status("zai")).state == ENABLED, "as far as people decide it"


async def test_every_change_is_told_with_who_before_and_after(tmp_path: Path) -> None:
    async with changing(tmp_path) as api:
        watch = api.events.WatchEvents(events_pb2.WatchEventsRequest(kind=events_pb2.EVENT_KIND_AUDIT, after_id=1))
        await api.set_state("zai", DISABLED)
        await api.set_state("zai", DISABLED)  # changes nothing
        await api.keys.RotateKey(keys_pb2.RotateKeyRequest(provider="zai", label="zai", secret=ROTATED_SECRET))
        await api.providers.ResetCircuit(providers_pb2.ResetCircuitRequest(provider="zai"))
        async with asyncio.timeout(10):
            seen = [(await watch.read()).event for _ in range(3)]
        listed = await api.audit()
        assert seen == listed
        disable, rotate, reset = listed
        assert (disable.action, disable.resource, disable.actor) == ("provider.disable", "providers/zai", "socket")
        assert json.loads(disable.before_json)["state"] == "enabled"
        assert json.loads(disable.after_json)["state"] == "disabled"
        assert json.loads(rotate.before_json)["fingerprint"] != json.loads(rotate.after_json)["fingerprint"]
        assert json.loads(reset.after_json) == {"circuit": "closed"}


async def test_everything_outlives_the_process_and_no_secret_lies_open(tmp_path: Path) -> None:
    """kill -9 right after the answer."""
    async with running_control(tmp_path, CONFIG) as control:
        async with talking_to(control) as api:
            await api.set_state("zai", DRAINING)
            await api.keys.AddKey(keys_pb2.AddKeyRequest(provider="zai", label="new", secret=ADDED_SECRET))
            await api.keys.RotateKey(keys_pb2.RotateKeyRequest(provider="zai", label="zai", secret=ROTATED_SECRET))
            before, told = await api.served(), await api.audit()
            control.kill()
        await control.start()
        async with talking_to(control) as api:
            after = await api.served()
            assert after.version > before.version
            assert list(after.providers) == list(before.providers)
            assert await api.audit() == told
        control.kill()
        for path in [*control.state_dir.rglob("*"), control.log_path]:
            content = path.read_bytes() if path.is_file() else b""
            for secret in (ADDED_SECRET, ROTATED_SECRET):
                assert secret.encode() not in content, path
        assert (control.state_dir / "store.key").stat().st_mode & 0o077 == 0
        assert (control.state_dir / "control.db").stat().st_mode & 0o077 == 0


async def test_what_happens_by_itself_is_told_too(tmp_path: Path) -> None:
    """Nodes that come and leave, configurations that were applied and refused."""
    async with changing(tmp_path) as api:
        await api.served()
        path = api.control.config_path
        path.write_text(CONFIG.replace("weight: 3", "weight: 4"))
        await api.config.ReloadConfig(config_pb2.ReloadConfigRequest())
        path.write_text("nonsense")
        await api.config.ReloadConfig(config_pb2.ReloadConfigRequest())

        async def told() -> bool:
            listed = await api.events.ListEvents(events_pb2.ListEventsRequest(page_size=1000))
            return {"node.join", "node.leave", "config.apply", "config.refuse"} <= {one.action for one in listed.events}

        await until(told, "all of it is told")
        pages, token = list[int](), ""
        while True:
            page = await api.events.ListEvents(events_pb2.ListEventsRequest(page_size=2, page_token=token))
            pages += [event.id for event in page.events]
            token = page.next_page_token
            if not token:
                break
        assert pages == sorted(set(pages), reverse=True)
        assert pages[-1] == 1


async def test_pages_and_kinds_that_make_no_sense_are_refused(unchanged: Control) -> None:
    async with talking_to(unchanged) as api:
        bad = grpc.StatusCode.INVALID_ARGUMENT
        for size in (-1, 1001):
            await refused(api.events.ListEvents(events_pb2.ListEventsRequest(page_size=size)), bad, "OUT_OF_RANGE")
        for token in ("x", "-1", "0", "9" * 30, "²"):
            await refused(api.events.ListEvents(events_pb2.ListEventsRequest(page_token=token)), bad, "PAGE_TOKEN")


async def test_accounts_are_listed_before_anything_is_known_of_them(unchanged: Control) -> None:
    async with talking_to(unchanged) as api:
        listed = await api.keys.ListScopes(keys_pb2.ListScopesRequest())
        assert [(one.provider, one.scope) for one in listed.budgets][:3] == [
            ("anthropic", "team-a"),
            ("anthropic", "team-b"),
            ("zai", "zai"),
        ]
        unknown = keys_pb2.ListScopesRequest(provider="none")
        await refused(api.keys.ListScopes(unknown), grpc.StatusCode.NOT_FOUND, "NO_SUCH_PROVIDER")
