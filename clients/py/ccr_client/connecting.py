"""`connect()`: one object with a stub for every service."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Protocol, cast

from ccr_rpc.v1 import (
    access_pb2_grpc,
    config_pb2_grpc,
    dashboard_pb2_grpc,
    events_pb2_grpc,
    fleet_pb2_grpc,
    keys_pb2_grpc,
    ledger_pb2_grpc,
    providers_pb2_grpc,
    records_pb2_grpc,
    routes_pb2_grpc,
    stats_pb2_grpc,
)

from ccr_client import door as doors
from ccr_client.calling import Calls, dial, dial_async, wrapped, wrapped_async
from ccr_client.door import Door, NoDoor

TIMEOUT_S = 10.0


class _Closing(Protocol):
    def close(self) -> Any: ...


class ControlPlane:
    """The services of a control plane. A context manager: the connection ends with the block.

    Calls take a request, and if wanted a `timeout` in seconds. Each raises ControlError.
    """

    def __init__(self, channel: _Closing, door: Door, timeout_s: float = TIMEOUT_S) -> None:
        """`connect` makes one."""
        self._channel, self.door = channel, door
        calls = cast("Any", Calls(channel, door.token, timeout_s, wrapped))
        self.access = access_pb2_grpc.AccessServiceStub(calls)
        self.config = config_pb2_grpc.ConfigServiceStub(calls)
        self.dashboard = dashboard_pb2_grpc.DashboardServiceStub(calls)
        self.events = events_pb2_grpc.EventServiceStub(calls)
        self.fleet = fleet_pb2_grpc.FleetServiceStub(calls)
        self.keys = keys_pb2_grpc.KeyServiceStub(calls)
        self.ledger = ledger_pb2_grpc.UsageLedgerServiceStub(calls)
        self.providers = providers_pb2_grpc.ProviderServiceStub(calls)
        self.records = records_pb2_grpc.RecordServiceStub(calls)
        self.routes = routes_pb2_grpc.RouteServiceStub(calls)
        self.stats = stats_pb2_grpc.StatsServiceStub(calls)
        self.calls = calls
        """The channel itself, for stubs of other services, such as reflection."""

    def close(self) -> None:
        """End the connection, and every stream on it."""
        self._channel.close()

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncControlPlane:
    """The same for asyncio: answers are awaited, streams are read with `async for`."""

    def __init__(self, channel: _Closing, door: Door, timeout_s: float = TIMEOUT_S) -> None:
        """`connect_async` makes one."""
        self._channel, self.door = channel, door
        calls = cast("Any", Calls(channel, door.token, timeout_s, wrapped_async))
        self.access = cast("access_pb2_grpc.AccessServiceAsyncStub", access_pb2_grpc.AccessServiceStub(calls))
        self.config = cast("config_pb2_grpc.ConfigServiceAsyncStub", config_pb2_grpc.ConfigServiceStub(calls))
        self.dashboard = cast(
            "dashboard_pb2_grpc.DashboardServiceAsyncStub", dashboard_pb2_grpc.DashboardServiceStub(calls)
        )
        self.events = cast("events_pb2_grpc.EventServiceAsyncStub", events_pb2_grpc.EventServiceStub(calls))
        self.fleet = cast("fleet_pb2_grpc.FleetServiceAsyncStub", fleet_pb2_grpc.FleetServiceStub(calls))
        self.keys = cast("keys_pb2_grpc.KeyServiceAsyncStub", keys_pb2_grpc.KeyServiceStub(calls))
        self.ledger = cast("ledger_pb2_grpc.UsageLedgerServiceAsyncStub", ledger_pb2_grpc.UsageLedgerServiceStub(calls))
        self.providers = cast(
            "providers_pb2_grpc.ProviderServiceAsyncStub", providers_pb2_grpc.ProviderServiceStub(calls)
        )
        self.records = cast("records_pb2_grpc.RecordServiceAsyncStub", records_pb2_grpc.RecordServiceStub(calls))
        self.routes = cast("routes_pb2_grpc.RouteServiceAsyncStub", routes_pb2_grpc.RouteServiceStub(calls))
        self.stats = cast("stats_pb2_grpc.StatsServiceAsyncStub", stats_pb2_grpc.StatsServiceStub(calls))

    async def close(self) -> None:
        """End the connection, and every stream on it."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncControlPlane:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def connect(
    control: str | Door | None = None,
    *,
    state_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> ControlPlane:
    """The control plane at `control` ("unix:/path" or "host:port"), else $CCR_CONTROL, else the state directory's.

    `token` is for an address; without one it is $CCR_CONTROL_TOKEN, or that of the state directory. Nothing is sent
    before the first call. Raises NoDoor if nothing says where to go.
    """
    door = _door(control, state_dir, token)
    return ControlPlane(dial(door), door, timeout_s)


def connect_async(
    control: str | Door | None = None,
    *,
    state_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> AsyncControlPlane:
    """The same for asyncio; for `async with`."""
    door = _door(control, state_dir, token)
    return AsyncControlPlane(dial_async(door), door, timeout_s)


def _door(control: str | Door | None, state_dir: str | os.PathLike[str] | None, token: str | None) -> Door:
    if isinstance(control, Door):
        return control
    state = doors.state_dir(os.fspath(state_dir) if state_dir is not None else None, os.environ)
    if (door := doors.find(control, state, os.environ)) is None:
        raise NoDoor(
            f"no control plane runs here ({state / 'control.address'} is not there): start one with `ccr serve`"
        )
    return replace(door, token=token or door.token)
