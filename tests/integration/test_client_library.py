"""`ccr_client` against a real control plane: what scripts are promised."""

from __future__ import annotations

import asyncio
import inspect
import socket
from itertools import islice
from pathlib import Path

import pytest
from ccr_client import ControlError, NoDoor, connect, connect_async, every, every_async
from ccr_client.door import find
from ccr_control import tls
from ccr_rpc.v1 import (
    access_pb2,
    events_pb2,
    fleet_pb2,
    providers_pb2,
    stats_pb2,
)
from support.control import CONFIG, running_control

WHO = access_pb2.WhoAmIRequest()


async def test_an_object_has_every_service_of_the_contract(tmp_path: Path) -> None:
    """Those of the nodes are not for scripts."""
    from ccr_cli.call import _methods

    for_nodes = {"SnapshotService", "UsageService"}
    services = {name.partition("/")[0] for name, _ in _methods()} - for_nodes
    with connect("unix:/nonexistent") as plane:
        held = {type(one).__name__.removesuffix("Stub") for one in vars(plane).values()}
    async with connect_async("unix:/nonexistent") as aplane:
        aheld = {type(one).__name__.removesuffix("Stub") for one in vars(aplane).values()}
    assert services <= held
    assert services <= aheld


async def test_the_state_directory_is_enough(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control:
        async with connect_async(state_dir=control.state_dir) as relay:
            who = await relay.access.WhoAmI(WHO)
            assert (who.name, who.role) == ("socket", access_pb2.ROLE_ADMIN)
        with connect(state_dir=control.state_dir) as plane:
            assert (await asyncio.to_thread(plane.access.WhoAmI, WHO)).name == "socket"


async def test_a_failure_has_a_word_for_programs(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control:
        async with connect_async(state_dir=control.state_dir) as relay:
            request = providers_pb2.SetProviderStateRequest(
                provider="nobody", state=providers_pb2.PROVIDER_STATE_ENABLED
            )
            with pytest.raises(ControlError, match="nobody") as caught:
                await relay.providers.SetProviderState(request)
            assert (caught.value.status, caught.value.reason) == ("NOT_FOUND", "NO_SUCH_PROVIDER")
            assert not caught.value.is_unreachable
        async with connect_async(control.tcp_address, state_dir=tmp_path, token="wrong") as stranger:
            with pytest.raises(ControlError) as caught:
                await stranger.fleet.ListNodes(fleet_pb2.ListNodesRequest())
            assert caught.value.status == "UNAUTHENTICATED"
            with pytest.raises(ControlError) as caught:
                await anext(aiter(stranger.events.WatchEvents(events_pb2.WatchEventsRequest())))
            assert caught.value.status == "UNAUTHENTICATED"
            assert "wrong" not in str(caught.value)
        with connect(control.tcp_address, state_dir=control.state_dir) as plane:  # its token is in there
            assert (await asyncio.to_thread(plane.access.WhoAmI, WHO)).role == access_pb2.ROLE_ADMIN
        control.kill()
        async with connect_async(state_dir=control.state_dir) as relay:
            with pytest.raises(ControlError) as caught:
                await relay.access.WhoAmI(WHO)
            assert caught.value.is_unreachable


async def test_what_hangs_ends_by_its_deadline(tmp_path: Path) -> None:
    """Something that takes connections and says nothing."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        async with connect_async(f"unix:{tmp_path}/silent", timeout_s=0.2) as relay:
            with pytest.raises(ControlError) as caught:
                await relay.access.WhoAmI(WHO)
    assert caught.value.status in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
    assert caught.value.is_unreachable


async def test_streams_go_on_until_they_are_left(tmp_path: Path) -> None:
    request = stats_pb2.WatchStatsRequest()
    request.interval.FromMilliseconds(100)
    async with running_control(tmp_path) as control:
        async with connect_async(state_dir=control.state_dir, timeout_s=0.15) as relay:
            seen = 0
            async for _ in relay.stats.WatchStats(request):  # a stream has no deadline
                seen += 1
                if seen == 4:
                    break

        def watched() -> int:
            with connect(state_dir=control.state_dir) as plane:
                answers = plane.stats.WatchStats(request)
                count = len(list(islice(answers, 3)))
                answers.cancel()
                return count + len(list(answers))

        assert await asyncio.to_thread(watched) == 3


async def test_pages_are_read_as_one_and_only_as_far_as_needed(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control, connect_async(state_dir=control.state_dir) as relay:
        for weight in range(2, 9):
            await relay.providers.UpdateProvider(
                providers_pb2.UpdateProviderRequest(provider="anthropic", weight=weight)
            )
        audit = events_pb2.EVENT_KIND_AUDIT
        whole = await relay.events.ListEvents(events_pb2.ListEventsRequest(kind=audit))
        request = events_pb2.ListEventsRequest(kind=audit, page_size=2)
        paged = [one async for one in every_async(relay.events.ListEvents, request, lambda page: page.events)]
        assert [one.id for one in paged] == [one.id for one in whole.events]
        assert len(paged) == 7

        def some() -> list[int]:
            asked = events_pb2.ListEventsRequest(kind=audit, page_size=3)
            with connect(state_dir=control.state_dir) as plane:
                return [one.id for one in islice(every(plane.events.ListEvents, asked, lambda page: page.events), 4)]

        assert await asyncio.to_thread(some) == [one.id for one in paged[:4]]


async def test_tls_is_spoken_where_certificates_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With our own certificate, where it is asked for."""
    folder = tmp_path / "tls"
    assert tls.main(["init", "--dir", str(folder), "--client", "laptop"]) == 0
    files = f"cert_file: {folder}/server.pem, key_file: {folder}/server-key.pem, client_ca_file: {folder}/ca.pem"
    text = CONFIG.replace('control: {listen: "127.0.0.1:0"}', f'control: {{listen: "0.0.0.0:0", tls: {{{files}}}}}')
    async with running_control(tmp_path, text) as control:
        place = f"localhost:{control.tcp_address.rpartition(':')[2]}"
        monkeypatch.setenv("CCR_CONTROL_CA", str(folder / "ca.pem"))
        async with connect_async(place, state_dir=control.state_dir, timeout_s=2) as relay:
            with pytest.raises(ControlError):
                await relay.access.WhoAmI(WHO)
        monkeypatch.setenv("CCR_CONTROL_CERT", str(folder / "laptop.pem"))
        monkeypatch.setenv("CCR_CONTROL_KEY", str(folder / "laptop-key.pem"))
        async with connect_async(place, state_dir=control.state_dir) as relay:
            assert (await relay.access.WhoAmI(WHO)).role == access_pb2.ROLE_ADMIN


def test_no_token_is_sent_to_another_machine_in_the_clear(tmp_path: Path) -> None:
    for target in ("relay.example.org:9090", "10.0.0.7:9090", "[2001:db8::1]:9090", "127.0.0.1.example.org:9090"):
        with pytest.raises(NoDoor, match="CCR_CONTROL_CA"):
            find(target, tmp_path, {"CCR_CONTROL_TOKEN": "secret"})
    for target in ("127.0.0.1:9090", "localhost:9090", "[::1]:9090"):
        door = find(target, tmp_path, {"CCR_CONTROL_TOKEN": "secret"})
        assert door is not None
        assert "secret" not in repr(door)


def test_nothing_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CCR_CONTROL", raising=False)
    with pytest.raises(NoDoor, match="ccr serve"):
        connect(state_dir=tmp_path)
    with pytest.raises(NoDoor, match="not the address"):
        connect("nonsense", state_dir=tmp_path)


def test_both_are_asked_for_alike() -> None:
    """So that an example for one is one for the other."""
    assert inspect.signature(connect).parameters == inspect.signature(connect_async).parameters
