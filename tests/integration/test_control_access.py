"""Who may talk to ccr-control, and when it does not start."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest
from ccr_rpc.v1 import config_pb2, config_pb2_grpc, snapshot_pb2_grpc, stats_pb2, stats_pb2_grpc, usage_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.control import CONFIG, Control, running_control, until
from support.fake_node import FakeNode


@pytest.mark.parametrize("metadata", [[], [("authorization", "Bearer wrong")], [("authorization", "")]])
async def test_the_port_is_for_holders_of_the_token(control: Control, metadata: list[tuple[str, str]]) -> None:
    """Every user of the machine can reach a loopback port."""
    async with control.channel(control.tcp_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await config_pb2_grpc.ConfigServiceStub(channel).GetConfig(config_pb2.GetConfigRequest(), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        call = stats_pb2_grpc.StatsServiceStub(channel).WatchStats(stats_pb2.WatchStatsRequest(), metadata=metadata)
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
        watch = snapshot_pb2_grpc.SnapshotServiceStub(channel).WatchSnapshots(metadata=metadata)
        assert await watch.code() is grpc.StatusCode.UNAUTHENTICATED
        stream = usage_pb2_grpc.UsageServiceStub(channel).ReportUsage(metadata=metadata)
        assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_with_the_token_the_port_offers_all_that_clients_use(control: Control) -> None:
    async with control.channel(control.tcp_address) as channel:
        metadata = [("authorization", f"Bearer {control.token}")]
        stub = config_pb2_grpc.ConfigServiceStub(channel)
        assert (await stub.GetConfig(config_pb2.GetConfigRequest(), metadata=metadata)).snapshot_version == 1


async def test_no_token_is_enough_for_what_nodes_do(control: Control) -> None:
    """A snapshot holds every secret there is; a token may be copied from a screen."""
    async with control.channel(control.tcp_address) as channel:
        metadata = [("authorization", f"Bearer {control.token}")]
        watch = snapshot_pb2_grpc.SnapshotServiceStub(channel).WatchSnapshots(metadata=metadata)
        assert await watch.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "ccr tls init --node" in (await watch.details() or "")
        stream = usage_pb2_grpc.UsageServiceStub(channel).ReportUsage(metadata=metadata)
        assert await stream.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_health_and_reflection_need_no_token(control: Control) -> None:
    """So that `grpcurl` and probes work."""
    async with control.channel(control.tcp_address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="ccr.rpc.v1.SnapshotService")
        )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
        names = {service.name for service in (await call.read()).list_services_response.service}
        assert {"ccr.rpc.v1.UsageService", "ccr.rpc.v1.StatsService", "grpc.health.v1.Health"} <= names


async def test_the_state_directory_is_private(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in control.state_dir.iterdir()}
        assert stat.S_IMODE(control.state_dir.stat().st_mode) == 0o700
        assert modes["control.token"] == modes["control.address"] == 0o600
        assert modes["control.sock"] & 0o077 == 0
        assert control.address == f"unix:{control.state_dir}/control.sock"
        token = control.token
        await control.stop()
        await control.start()
        assert control.token == token, "clients keep working"


async def test_a_second_control_plane_on_the_state_directory_does_not_start(control: Control) -> None:
    """It would steal the socket from the first."""
    second = await asyncio.to_thread(run, control)
    assert second.returncode == 69
    assert second.stderr.splitlines() == [
        f"ccr-control: another ccr-control (pid {control.process.pid}) already uses {control.state_dir}"
    ]
    async with control.channel() as channel, FakeNode(channel).watching() as node:
        await node.got()


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        control = Control(tmp_path, CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        ended = run(control)
    assert ended.returncode == 69
    last = ended.stderr.splitlines()[-1]
    assert last == f"ccr-control: cannot listen on 127.0.0.1:{port} (control.listen): Address already in use"


def test_a_state_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    control = Control(tmp_path)
    control.state_dir.mkdir()
    control.state_dir.chmod(0o777)
    ended = run(control)
    assert ended.returncode == 69
    assert ended.stderr == (
        f"ccr-control: the directory {control.state_dir} is writable by others; run: chmod 700 {control.state_dir}\n"
    )


def test_a_bad_configuration_is_told_whole(tmp_path: Path) -> None:
    """All mistakes at once, one a line."""
    control = Control(tmp_path, CONFIG.replace("type: anthropic", "type: anthropik\n    colour: green"))
    ended = run(control)
    assert ended.returncode == 78
    lines = ended.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{control.config_path}:") for line in lines)


def test_no_configuration_says_where_it_was_looked_for(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CCR_STATE_DIR": str(tmp_path / "state")}
    ended = subprocess.run(
        [sys.executable, "-m", "ccr_control.server"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=env,
        cwd=tmp_path,
    )
    assert ended.returncode == 78
    assert str(tmp_path / "ccr.yaml") in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


async def test_every_log_line_is_json_and_none_holds_a_secret(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control:
        async with control.channel() as channel, FakeNode(channel).watching() as node:
            await node.got()
        await control.stop()
        lines = [json.loads(line) for line in control.log_text().splitlines()]
        assert lines[-1]["event"] == "control_stopped"
        assert all({"ts", "level", "event"} <= line.keys() for line in lines)
        assert control.token not in control.log_text()
        assert "not-a-real-key" not in control.log_text()


async def test_a_reader_of_the_log_that_stops_reading_stops_nothing(tmp_path: Path) -> None:
    """stderr may be a pipe to a program that hangs."""
    control = Control(tmp_path)
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(*command(control), stdin=subprocess.DEVNULL, stderr=writing)
    os.close(writing)
    try:
        await until((control.state_dir / "control.address").exists, "ready", 30)
        async with control.channel() as channel:
            stub = stats_pb2_grpc.StatsServiceStub(channel)
            for i in range(600):  # each makes two log lines; a pipe holds 64 KiB
                async with FakeNode(channel, node_id=f"{i}-{'x' * 100}").watching() as node:
                    await node.got()
            await stub.GetStats(stats_pb2.GetStatsRequest(), timeout=5)
        process.terminate()
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(reading)


def command(control: Control) -> list[str]:
    """Starts ccr-control with the test's configuration and state directory."""
    arguments = ["--config", str(control.config_path), "--state-dir", str(control.state_dir), "--log-format", "json"]
    return [sys.executable, "-m", "ccr_control.server", *arguments]


def run(control: Control) -> subprocess.CompletedProcess[str]:
    """Runs ccr-control, which is expected to end by itself."""
    return subprocess.run(command(control), capture_output=True, text=True, timeout=30, check=False)
