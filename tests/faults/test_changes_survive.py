"""Changes while things break: what was acknowledged is there afterwards, with its event; what was not is whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
from pathlib import Path

import grpc
import grpc.aio
import pytest
from ccr_rpc.v1 import access_pb2, access_pb2_grpc, config_pb2, keys_pb2, providers_pb2
from integration.test_changes import CONFIG, DISABLED, Api, talking_to
from support.control import Control, running_control, until

pytestmark = pytest.mark.long

ROUNDS = 4


async def change(api: Api, weight: int) -> None:
    await api.providers.UpdateProvider(providers_pb2.UpdateProviderRequest(provider="zai", weight=weight), timeout=10)


async def change_until_killed(api: Api, begin: int, acknowledged: list[int]) -> None:
    """One change after the other; those that were answered are noted."""
    weight = begin
    with contextlib.suppress(grpc.aio.AioRpcError):
        while True:
            weight += 1
            await change(api, weight)
            acknowledged.append(weight)


async def test_killed_in_the_middle_of_changes(tmp_path: Path) -> None:
    """kill -9 at random moments."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    roll = random.Random(seed)
    acknowledged: list[int] = [3]
    async with running_control(tmp_path, CONFIG) as control:
        for _ in range(ROUNDS):
            async with talking_to(control) as api:
                changing = asyncio.create_task(change_until_killed(api, acknowledged[-1], acknowledged))
                enough = len(acknowledged) + roll.randrange(1, 30)
                await until(lambda: len(acknowledged) >= enough, "changes are made")  # noqa: B023
                control.kill()
                await changing
            await control.start()
            async with talking_to(control) as api:
                weight = (await api.status("zai")).weight
                assert weight in (acknowledged[-1], acknowledged[-1] + 1), "the last one may be kept and not answered"
                acknowledged += [weight] if weight != acknowledged[-1] else []
                told = [json.loads(event.after_json)["weight"] for event in await api.audit()]
                assert told == acknowledged[1:]
                numbers = [event.id for event in await api.audit()]
                assert numbers == sorted(set(numbers))


async def test_a_caller_who_leaves_leaves_nothing_half_done(tmp_path: Path) -> None:
    """What is in force, what is kept and what was told stay one."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    roll = random.Random(seed)
    async with running_control(tmp_path, CONFIG) as control, talking_to(control) as api:
        for weight in range(10, 60):
            call = asyncio.create_task(change(api, weight))
            await asyncio.sleep(roll.random() * 0.01)  # not to wait: to leave at another point each time
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await call
        await change(api, 99)
        told = [json.loads(event.after_json)["weight"] for event in await api.audit()]
        befores = [json.loads(event.before_json)["weight"] for event in await api.audit()]
        assert told[-1] == 99
        assert befores == [3, *told[:-1]], "each was made upon the one before"
        control.kill()
        await control.start()
        async with talking_to(control) as later:
            assert (await later.status("zai")).weight == 99


async def test_what_cannot_be_kept_is_refused_and_not_in_force(tmp_path: Path) -> None:
    """Else it would be gone after a restart, and nobody would know who made it."""
    async with running_control(tmp_path, CONFIG) as control, talking_to(control) as api:
        await until(lambda: control.event("control_ready"), "ready")
        with contextlib.closing(sqlite3.connect(control.state_dir / "control.db", isolation_level=None)) as held:
            held.execute("BEGIN IMMEDIATE")  # nobody else can write
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await api.set_state("zai", DISABLED)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert (await api.status("zai")).state != DISABLED
            held.execute("ROLLBACK")

        async def is_made() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await api.set_state("zai", DISABLED)
            return (await api.status("zai")).state == DISABLED

        await until(is_made, "it can be made again", 20)
        assert len(await api.audit()) == 1


async def test_a_database_that_breaks_while_running_loses_no_change(tmp_path: Path) -> None:
    """The new one is told what is in force."""
    async with running_control(tmp_path, CONFIG) as control:
        async with talking_to(control) as api:
            await api.set_state("zai", DISABLED)
            stub = access_pb2_grpc.AccessServiceStub(api.channel)
            await stub.CreateToken(access_pb2.CreateTokenRequest(name="ci", role=access_pb2.ROLE_VIEWER))
            break_database(control)

            async def is_given_up() -> bool:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await change(api, random.randrange(10, 1000))
                return bool(control.events("store_given_up"))

            await until(is_given_up, "the file is given up", 20)

            async def is_kept() -> bool:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await change(api, 77)
                    return (await api.config.GetConfig(config_pb2.GetConfigRequest())).revision > 0
                return False

            await until(is_kept, "changes are kept again", 20)
        control.kill()
        await control.start()
        async with talking_to(control) as api:
            status = await api.status("zai")
            assert (status.state, status.weight) == (DISABLED, 77)
            stub = access_pb2_grpc.AccessServiceStub(api.channel)
            (token,) = (await stub.ListTokens(access_pb2.ListTokensRequest())).tokens
            assert token.name == "ci"


def break_database(control: Control) -> None:
    """Make it one that can never be used."""
    with contextlib.closing(sqlite3.connect(control.state_dir / "control.db", isolation_level=None)) as connection:
        connection.execute("DROP TABLE events")


async def test_without_its_key_a_store_tells_no_secret_and_starts_all_the_same(tmp_path: Path) -> None:
    async with running_control(tmp_path, CONFIG) as control:
        async with talking_to(control) as api:
            request = keys_pb2.AddKeyRequest(provider="zai", label="new", secret="sk-of-run-time-1234567")
            await api.keys.AddKey(request)
            rotate = keys_pb2.RotateKeyRequest(provider="zai", label="zai", secret="sk-of-run-time-7654321")
            await api.keys.RotateKey(rotate)
        control.kill()
        (control.state_dir / "store.key").unlink()
        await control.start()
        async with talking_to(control) as api:
            (key,) = next(one for one in (await api.served()).providers if one.name == "zai").keys
            assert (key.label, key.secret) == ("zai", "not-a-real-zai-key")
        assert len(control.events("secret_unreadable")) == 2
