"""The small parts of ccr-control's shell: logs, paths, the guard, watched directories, long calls."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
from ccr_control.core.access import BOOTSTRAP, Caller
from ccr_control.core.errors import Unauthenticated
from ccr_control.shell.access import Doorman, needs_token
from ccr_control.shell.log import Log, logging_to, masked
from ccr_control.shell.paths import CannotStart, NoConfig, config_file, locked, state_dir, token
from ccr_control.shell.streams import OpenStreams
from ccr_control.shell.watcher import watched_directories


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abcdef123456",
        "bearer abcdef123456 and more",
        "key sk-ant-api03-abc_DEF-123456",
        "sk-abcdef123456",
        "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-123456",
    ],
)
def test_credentials_are_masked(text: str) -> None:
    """Whatever a library or an upstream puts into a message."""
    assert "123456" not in masked(text)
    assert "***" in masked(text)


@pytest.mark.parametrize("text", ["key-primary is enabled", "task-runner", "risk-assessment", "snapshot_published"])
def test_ordinary_words_are_not_masked(text: str) -> None:
    assert masked(text) == text


def test_a_line_is_json_with_time_level_event_and_fields() -> None:
    lines: list[bytes] = []
    with logging_to(lines.append, "json"):
        Log("test").info("provider_seen", provider="zai", latency_ms=3)
        try:
            raise ValueError("sk-ant-secret-secret")
        except ValueError:
            Log("test").exception("it_failed")
        logging.getLogger("some.library").warning("careful with %s", "this")
    seen, failed, library = (json.loads(line) for line in lines)
    assert seen.pop("ts").endswith("Z")
    assert seen == {
        "level": "info",
        "logger": "ccr.control.test",
        "event": "provider_seen",
        "provider": "zai",
        "latency_ms": 3,
    }
    assert "secret-secret" not in failed["exception"]
    assert (library["event"], library["level"]) == ("careful with this", "warning")


def test_text_is_for_eyes() -> None:
    lines: list[bytes] = []
    with logging_to(lines.append, "text"):
        Log("test").warning("provider_seen", provider="z ai", latency_ms=3)
    assert lines[0].decode().split(" ", 1)[1] == 'WARNING provider_seen provider="z ai" latency_ms=3\n'


def test_the_configuration_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, home = tmp_path / "work", tmp_path / "xdg"
    work.mkdir()
    (home / "cc-relay").mkdir(parents=True)
    monkeypatch.chdir(work)
    env = {"XDG_CONFIG_HOME": str(home)}
    with pytest.raises(NoConfig):
        config_file(None, env)
    (home / "cc-relay" / "config.toml").touch()
    assert config_file(None, env) == home / "cc-relay" / "config.toml"
    (home / "cc-relay" / "config.yaml").touch()
    assert config_file(None, env) == home / "cc-relay" / "config.yaml"
    (work / "ccr.toml").touch()
    assert config_file(None, env) == work / "ccr.toml"
    assert config_file(None, {**env, "CCR_CONFIG": "/else/where.yaml"}) == Path("/else/where.yaml")
    assert config_file("named.yaml", {**env, "CCR_CONFIG": "/else/where.yaml"}) == work / "named.yaml"


def test_the_state_directory_is_found_and_made(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "xdg")}
    assert state_dir(None, env).path == tmp_path / "xdg" / "cc-relay"
    assert state_dir(None, {**env, "CCR_STATE_DIR": str(tmp_path / "env")}).path == tmp_path / "env"
    found = state_dir(str(tmp_path / "named"), {**env, "CCR_STATE_DIR": str(tmp_path / "env")})
    assert found.path == tmp_path / "named"
    assert found.path.stat().st_mode & 0o777 == 0o700


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/below"):
        with pytest.raises(CannotStart, match="directory"):
            state_dir(str(tmp_path / name), {})


def test_a_token_that_others_could_read_is_replaced(tmp_path: Path) -> None:
    state = state_dir(str(tmp_path / "state"), {})
    first = token(state)
    assert token(state) == first
    (state.path / "control.token").chmod(0o644)
    second = token(state)
    assert second != first
    assert (state.path / "control.token").stat().st_mode & 0o777 == 0o600


def test_the_lock_is_free_again_when_the_block_ends(tmp_path: Path) -> None:
    state = state_dir(str(tmp_path / "state"), {})
    with locked(state), pytest.raises(CannotStart, match="already uses"), locked(state):
        pass
    with locked(state):
        pass


@pytest.mark.parametrize(
    ("header", "is_right"),
    [
        ("Bearer right", True),
        ("bearer right", True),
        (b"Bearer right", True),
        ("Bearer wrong", False),
        ("Basic right", False),
        ("right", False),
        ("Bearer", False),
        ("Bearer \udcff", False),
        ("", False),
        (None, False),
    ],
)
def test_only_the_right_token_opens(header: str | bytes | None, is_right: bool) -> None:
    doorman = Doorman("right", lambda: 0.0)
    if is_right:
        assert doorman.admit("/ccr.rpc.v1.StatsService/GetStats", header, "unix:") == Caller(BOOTSTRAP, "admin")
    else:
        with pytest.raises(Unauthenticated):
            doorman.admit("/ccr.rpc.v1.StatsService/GetStats", header, "unix:")


def test_only_health_and_reflection_need_no_token() -> None:
    assert not needs_token("/grpc.health.v1.Health/Check")
    assert not needs_token("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    assert needs_token("/ccr.rpc.v1.SnapshotService/WatchSnapshots")
    assert needs_token("/grpc.health.v1.HealthX/Check")
    assert needs_token("")


def test_every_directory_on_the_way_to_the_file_is_watched(tmp_path: Path) -> None:
    """app/current → releases/5, releases/5/ccr.yaml → ../../shared/ccr.yaml."""
    for folder in ("releases/5", "app", "shared"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "shared" / "ccr.yaml").touch()
    (tmp_path / "releases" / "5" / "ccr.yaml").symlink_to("../../shared/ccr.yaml")
    (tmp_path / "app" / "current").symlink_to(tmp_path / "releases" / "5")
    found = watched_directories(tmp_path / "app" / "current" / "ccr.yaml")
    assert {tmp_path / "app", tmp_path / "releases" / "5", tmp_path / "shared"} <= found
    assert watched_directories(tmp_path / "plain.yaml") >= {tmp_path}


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "ccr.yaml").symlink_to("ccr.yaml")
    assert tmp_path in watched_directories(tmp_path / "ccr.yaml")


async def test_long_calls_end_when_the_server_stops_and_later_ones_at_once() -> None:
    streams, ended = OpenStreams(), list[str]()

    async def call(name: str) -> None:
        async with streams.until_stopping():
            await asyncio.Event().wait()
        ended.append(name)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(call("early"))
        await asyncio.sleep(0)
        streams.stop()
        tasks.create_task(call("late"))
    assert sorted(ended) == ["early", "late"]


async def test_a_time_limit_of_the_call_itself_is_not_taken_for_the_stop() -> None:
    with pytest.raises(TimeoutError):
        async with OpenStreams().until_stopping(), asyncio.timeout(0):
            await asyncio.Event().wait()
