"""Every method, from everybody: the right status, nothing changed, and the process goes on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from ccr_control.core.access import MAX_FAILURES, NEEDED, NODE_METHODS
from ccr_rpc.v1 import (
    access_pb2,
    access_pb2_grpc,
    config_pb2,
    config_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    routes_pb2,
    routes_pb2_grpc,
    snapshot_pb2,
    stats_pb2,
    stats_pb2_grpc,
)
from integration.test_changes import CONFIG, refused, talking_to
from support.control import Control, running_control, shared_control, until

Metadata = list[tuple[str, str]]
UNARY = sorted(set(NEEDED) - NODE_METHODS)
OF_REVISIONS = {
    "/ccr.rpc.v1.ConfigService/DiffConfig": config_pb2.DiffConfigRequest(
        from_revision=1, to_revision=1
    ).SerializeToString()
}
"""Where an empty message asks for more than a viewer may."""

CALL_WITHIN_S = 3.0
SEED = 20261121


@dataclass
class Door:
    """The TCP port, and the owner's way in."""

    control: Control
    channel: grpc.aio.Channel
    owner: access_pb2_grpc.AccessServiceStub

    async def holder(self, name: str, role: access_pb2.Role.ValueType, **more: object) -> Metadata:
        """The metadata of one who holds a new token."""
        request = access_pb2.CreateTokenRequest(name=name, role=role, **more)  # type: ignore[arg-type]
        return [("authorization", f"Bearer {(await self.owner.CreateToken(request)).token}")]

    @property
    def bootstrap(self) -> Metadata:
        return [("authorization", f"Bearer {self.control.token}")]

    async def status(self, method: str, message: bytes = b"", metadata: Metadata | None = None) -> grpc.StatusCode:
        """What a call of raw bytes ends with. A stream that goes on counts as OK."""
        call = self.channel.stream_stream(method)(metadata=metadata, timeout=CALL_WITHIN_S)
        async with asyncio.timeout(CALL_WITHIN_S * 2):
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it may be over before that
                if message or method in UNARY:  # gRPC has words of its own for writing to a call that is over
                    await call.write(message)
                await call.done_writing()
            with contextlib.suppress(grpc.aio.AioRpcError):
                if await call.read() is not grpc.aio.EOF:
                    call.cancel()
                    return grpc.StatusCode.OK
            return await call.code()

    async def state(self) -> tuple[str, int, int]:
        """All that a change would show in."""
        async with talking_to(self.control) as api:
            config = await api.config.GetConfig(config_pb2.GetConfigRequest())
            audit = [one for one in await api.audit() if one.resource.partition("/")[0] != "tokens"]
            return config.config_hash, config.overlay_entries, len(audit)


async def next_end(call: grpc.aio.UnaryStreamCall[Any, Any]) -> None:
    """Read to the end of a stream. Raises AioRpcError."""
    while await call.read() is not grpc.aio.EOF:
        pass


@asynccontextmanager
async def door(control: Control) -> AsyncIterator[Door]:
    async with control.channel(control.tcp_address) as channel, control.channel() as private:
        yield Door(control, channel, access_pb2_grpc.AccessServiceStub(private))


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """For all tests that change nothing but tokens, each with names of its own."""
    with shared_control(tmp_path_factory.mktemp("control"), CONFIG) as running:
        yield running


async def test_without_a_token_nothing_can_be_called(tmp_path: Path) -> None:
    """And who seems to guess is an alert, once."""
    assert len(NEEDED) > MAX_FAILURES
    async with running_control(tmp_path, CONFIG) as control, door(control) as there:
        before = await there.state()
        found = [await there.status(method, metadata=[("authorization", "Bearer guess")]) for method in NEEDED]
        assert set(found[: MAX_FAILURES - 1]) == {grpc.StatusCode.UNAUTHENTICATED}
        assert set(found[MAX_FAILURES - 1 :]) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert await there.status("/ccr.rpc.v1.StatsService/GetStats", metadata=there.bootstrap) is grpc.StatusCode.OK
        assert await there.state() == before
        async with there.control.channel() as channel:
            stub = events_pb2_grpc.EventServiceStub(channel)
            request = events_pb2.ListEventsRequest(kind=events_pb2.EVENT_KIND_ALERT)
            alerts = (await stub.ListEvents(request)).events
        assert [event.action for event in alerts] == ["access.guessed"]


async def test_a_viewer_sees_and_changes_nothing(control: Control) -> None:
    async with door(control) as there:
        viewer = await there.holder("eyes", access_pb2.ROLE_VIEWER)
        before = await there.state()
        for method, role in NEEDED.items():
            found = await there.status(method, OF_REVISIONS.get(method, b""), viewer)
            if role == "viewer":
                assert found not in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED), method
            else:
                assert found is grpc.StatusCode.PERMISSION_DENIED, method
        assert await there.state() == before


async def test_a_viewer_compares_revisions_and_learns_no_secret(tmp_path: Path) -> None:
    """Not even by its hash: what people choose for their clients can be guessed."""
    weak, strong, strewn = "summer2026", "sk-ant-api03-rotated-at-run-time", "sk-ant-api03-not-a-real-either"
    changed = CONFIG.replace("sk-ant-api03-not-a-real-key", strong) + (
        f"  - {{name: odd, type: ollama, base_url: 'http://localhost:11434/{strewn}', headers: {{x-note: private-words}}}}\n"
        f"server: {{auth: {{keys: [{{name: desk, key: {weak}}}]}}}}\n"
    )
    async with running_control(tmp_path, CONFIG) as control, door(control) as there, talking_to(control) as api:
        viewer = await there.holder("eyes", access_pb2.ROLE_VIEWER)
        applied = await api.config.ApplyConfig(config_pb2.ApplyConfigRequest(text=changed))
        assert not applied.problems
        stub = config_pb2_grpc.ConfigServiceStub(there.channel)
        revisions = config_pb2.DiffConfigRequest(from_revision=1, to_revision=2)
        first, second = [await stub.DiffConfig(revisions, metadata=viewer) for _ in range(2)]
        assert "providers[0].keys[0].key" in first.paths
        assert first.diff != second.diff, "nobody can tell by it what he knows from elsewhere"
        whole = (await api.config.DiffConfig(revisions)).diff
        for secret in (weak, strong, strewn, "private-words", "not-a-real"):
            assert secret not in first.diff + whole
            assert hashlib.sha256(secret.encode()).hexdigest()[:8] not in first.diff
        assert hashlib.sha256(strong.encode()).hexdigest()[:8] in whole, "admins know it as `ccr keys list` does"
        for request in ({"text": changed}, {"from_revision": 1}, {}):
            call = stub.DiffConfig(config_pb2.DiffConfigRequest(**request), metadata=viewer)  # type: ignore[arg-type]
            await refused(call, grpc.StatusCode.PERMISSION_DENIED, "ROLE_TOO_LOW")


async def test_an_operator_is_no_admin(control: Control) -> None:
    async with door(control) as there:
        operator = await there.holder("no-admin", access_pb2.ROLE_OPERATOR)
        for method, role in NEEDED.items():
            if role == "admin":
                assert await there.status(method, metadata=operator) is grpc.StatusCode.PERMISSION_DENIED, method


async def test_nonsense_ends_with_a_status_and_the_process_goes_on(control: Control) -> None:
    """Bytes that are no message, random ones, and far too many."""
    roll = random.Random(SEED)
    async with door(control) as there:
        viewer = await there.holder("nonsense", access_pb2.ROLE_VIEWER)
        for method in NEEDED:
            found = await there.status(method, b"\xff\xff\xff", there.bootstrap)
            if method in UNARY:
                assert found in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED), (method, found)
            else:  # for nodes with a certificate, whatever the token; the bytes may be looked at first
                assert found in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INTERNAL), (method, found)
        async with there.control.channel() as private:
            for method in NODE_METHODS:  # gRPC's own words for a stream with nonsense
                found = await Door(there.control, private, there.owner).status(method, b"\xff\xff\xff")
                assert found in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL), (method, found)
        before = await there.state()
        for method in UNARY:
            for _ in range(8):
                message = roll.randbytes(roll.randrange(1, 200))
                found = await there.status(method, message, viewer)
                assert found is not grpc.StatusCode.UNKNOWN, (method, message, SEED)
                assert found is not grpc.StatusCode.UNAVAILABLE, (method, message, SEED)
        assert await there.state() == before
        unbounded = [("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(there.control.tcp_address, options=unbounded) as channel:
            huge = config_pb2.ValidateConfigRequest(text="x" * (72 << 20))
            call = config_pb2_grpc.ConfigServiceStub(channel).ValidateConfig(huge, metadata=there.bootstrap)
            assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        failed = there.control.events("handler_failed")
        assert failed == []
        assert await there.status("/ccr.rpc.v1.StatsService/GetStats", metadata=viewer) is grpc.StatusCode.OK


async def test_a_token_is_shown_once_and_ends_at_once(control: Control) -> None:
    async with door(control) as there:
        made = await there.owner.CreateToken(access_pb2.CreateTokenRequest(name="ci", role=access_pb2.ROLE_OPERATOR))
        holder = [("authorization", f"Bearer {made.token}")]
        who = await access_pb2_grpc.AccessServiceStub(there.channel).WhoAmI(access_pb2.WhoAmIRequest(), metadata=holder)
        assert (who.name, who.role) == ("ci", access_pb2.ROLE_OPERATOR)
        again = access_pb2.CreateTokenRequest(name="ci", role=access_pb2.ROLE_VIEWER)
        await refused(there.owner.CreateToken(again), grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")
        tokens = (await there.owner.ListTokens(access_pb2.ListTokensRequest())).tokens
        (listed,) = (one for one in tokens if one.name == "ci")
        assert listed.HasField("last_used_at")

        watch = stats_pb2_grpc.StatsServiceStub(there.channel).WatchStats(
            stats_pb2.WatchStatsRequest(), metadata=holder
        )
        await watch.read()
        await there.owner.RevokeToken(access_pb2.RevokeTokenRequest(name="ci"))
        async with asyncio.timeout(10):
            with pytest.raises(grpc.aio.AioRpcError):
                await next_end(watch)
            assert await watch.code() is grpc.StatusCode.UNAUTHENTICATED
        found = await there.status("/ccr.rpc.v1.StatsService/GetStats", metadata=holder)
        assert found is grpc.StatusCode.UNAUTHENTICATED
        gone = access_pb2.RevokeTokenRequest(name="ci")
        await refused(there.owner.RevokeToken(gone), grpc.StatusCode.NOT_FOUND, "NO_SUCH_TOKEN")


async def test_tokens_outlive_a_kill_as_hashes(tmp_path: Path) -> None:
    async with running_control(tmp_path, CONFIG) as control:
        async with control.channel() as channel:
            stub = access_pb2_grpc.AccessServiceStub(channel)
            ends = datetime.now(UTC) + timedelta(hours=1)
            request = access_pb2.CreateTokenRequest(name="ci", role=access_pb2.ROLE_VIEWER)
            request.expires_at.FromDatetime(ends)
            token = (await stub.CreateToken(request)).token
        control.kill()
        for path in [*control.state_dir.rglob("*"), control.log_path]:
            assert not path.is_file() or token.encode() not in path.read_bytes(), path
        await control.start()
        async with control.channel(control.tcp_address) as channel:
            stub = access_pb2_grpc.AccessServiceStub(channel)
            who = await stub.WhoAmI(access_pb2.WhoAmIRequest(), metadata=[("authorization", f"Bearer {token}")])
            assert who.role == access_pb2.ROLE_VIEWER


@pytest.mark.parametrize("name", ["", "socket", "control.token", "file", "a/b", "é", "x" * 65])
async def test_names_that_would_mislead_are_refused(control: Control, name: str) -> None:
    """Who reads the audit log must be able to tell the owner from a token."""
    async with door(control) as there:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await there.holder(name, access_pb2.ROLE_VIEWER)
        assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS)


async def test_an_expired_token_cannot_be_made(control: Control) -> None:
    async with door(control) as there:
        request = access_pb2.CreateTokenRequest(name="old", role=access_pb2.ROLE_VIEWER)
        request.expires_at.FromDatetime(datetime.now(UTC) - timedelta(hours=1))
        await refused(there.owner.CreateToken(request), grpc.StatusCode.INVALID_ARGUMENT, "EXPIRED")


async def test_a_configuration_of_ones_own_is_decided_by_for_admins_only(control: Control) -> None:
    """It may name any variable of the control plane, and the answer would show it."""
    async with door(control) as there:
        viewer = await there.holder("asks", access_pb2.ROLE_VIEWER)

        request = routes_pb2.ExplainRouteRequest(
            request=snapshot_pb2.HypotheticalRequest(model="claude"), config=b"version: 1"
        )
        call = routes_pb2_grpc.RouteServiceStub(there.channel).ExplainRoute(request, metadata=viewer)
        await refused(call, grpc.StatusCode.PERMISSION_DENIED, "ROLE_TOO_LOW")


async def test_a_change_names_who_made_it(control: Control) -> None:
    async with door(control) as there:
        operator = await there.holder("hands", access_pb2.ROLE_OPERATOR)
        stub = config_pb2_grpc.ConfigServiceStub(there.channel)
        await stub.ReloadConfig(config_pb2.ReloadConfigRequest(), metadata=operator)
        async with talking_to(there.control) as api:

            async def actors() -> bool:
                return [one.actor for one in await api.audit()][-2:] == ["socket", "hands"]

            await until(actors, "both are told")
