"""`ccr status` and the commands that ask the running control plane, against a real one."""

from __future__ import annotations

import json
from pathlib import Path

from support.ccr import ccr, ccr_beside
from support.control import CONFIG, Control, running_control
from support.control import until as until_async
from support.fake_node import FakeNode, FakeReporter, batch, record

SECRET = "sk-ant-api03-not-a-real-key"


def test_without_a_control_plane_it_says_how_to_start_one(tmp_path: Path) -> None:
    """Exit code 3, one line, no traceback."""
    for command in (["status"], ["config", "reload"], ["config", "show"], ["config", "validate"]):
        done = ccr(*command, "--state-dir", str(tmp_path))
        assert done.returncode == 3
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert "ccr serve" in done.stderr


def test_a_control_plane_that_is_gone_is_no_traceback_either(tmp_path: Path) -> None:
    """Its address is still there after a crash."""
    (tmp_path / "control.address").write_text(f"unix:{tmp_path}/control.sock\n")
    done = ccr("status", "--state-dir", str(tmp_path))
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert f"no control plane answers at unix:{tmp_path}/control.sock" in done.stderr


def test_without_a_control_plane_json_is_still_json(tmp_path: Path) -> None:
    """A monitor need not read two formats."""
    done = ccr("status", "--json", "--state-dir", str(tmp_path))
    assert done.returncode == 3
    assert json.loads(done.stdout)["healthy"] is False


async def test_all_is_well(tmp_path: Path) -> None:
    """Exit code 0; the configuration, every worker and every provider are shown."""
    async with running_control(tmp_path) as control, control.channel() as channel:
        node, reporter = FakeNode(channel, node_id="worker-0"), FakeReporter(channel, node_id="worker-0")
        async with node.watching(), reporter.reporting():
            await node.got()
            await reporter.report(batch(1, record(), record()))
            done = await ccr_beside("status", "--state-dir", str(control.state_dir))
            as_json = await ccr_beside("status", "--json", "--state-dir", str(control.state_dir))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "worker-0" in done.stdout
    assert "serving" in done.stdout
    assert str(control.config_path) in done.stdout
    assert "\x1b" not in done.stdout
    found = json.loads(as_json.stdout)
    assert found["healthy"] is True
    assert found["problems"] == []
    assert found["nodes"][0]["served_version"] == found["newest_version"] >= 1
    assert [(one["provider"], one["requests"], one["cache_read_tokens"]) for one in found["providers"]] == [
        ("anthropic", 2, 600)
    ]


async def test_without_workers_it_is_not_well(tmp_path: Path) -> None:
    """Nobody serves the configuration."""
    async with running_control(tmp_path) as control:
        done = await ccr_beside("status", "--state-dir", str(control.state_dir))
    assert done.returncode == 1
    assert "no worker is connected" in done.stderr


async def test_a_worker_that_rejects_is_not_well(tmp_path: Path) -> None:
    """With its reason."""
    async with running_control(tmp_path) as control, control.channel() as channel:
        node = FakeNode(channel, node_id="worker-0", reason_to_reject=lambda _: "does not fit")
        async with node.watching():
            await node.got()
            done = await ccr_beside("status", "--state-dir", str(control.state_dir))
    assert done.returncode == 1
    assert "rejecting" in done.stdout
    assert "does not fit" in done.stderr


async def test_a_refused_edit_is_not_well_until_it_is_mended(tmp_path: Path) -> None:
    """The old configuration stays in force; status, validate and reload all tell the place of the mistake."""
    async with running_control(tmp_path) as control, control.channel() as channel:
        node = FakeNode(channel, node_id="worker-0")
        async with node.watching():
            await node.got()
            control.config_path.write_text(CONFIG.replace("type: anthropic", "type: antropic"))
            where = ("--state-dir", str(control.state_dir))
            reloaded = await ccr_beside("config", "reload", *where)
            seen = await ccr_beside("status", *where)
            validated = await ccr_beside("config", "validate", *where)
            for done in (reloaded, seen, validated):
                assert done.returncode == 1, done
                assert "ccr.yaml:5:" in done.stderr
                assert "antropic" in done.stderr
            assert "refused" in reloaded.stdout
            control.config_path.write_text(CONFIG + "    weight: 2\n")
            await until_async(lambda: control.events("config_good_again"), "the mended file is seen")
            assert (await ccr_beside("status", *where)).returncode == 0
            again = await ccr_beside("config", "reload", "--json", *where)
            assert json.loads(again.stdout)["problems"] == []
            assert (await ccr_beside("config", "validate", *where)).returncode == 0


async def test_show_hides_secrets(control: Control) -> None:
    """What it prints is pasted into bug reports."""
    where = ("--state-dir", str(control.state_dir))
    shown = await ccr_beside("config", "show", *where)
    as_json = await ccr_beside("config", "show", "--json", *where)
    offline = await ccr_beside("config", "show", str(control.config_path))
    for done in (shown, as_json, offline):
        assert done.returncode == 0, done.stderr
        assert "***" in done.stdout
        assert "team-a" in done.stdout
        assert SECRET not in done.stdout + done.stderr
    assert json.loads(as_json.stdout)["source"] == str(control.config_path)


async def test_the_tcp_port_needs_the_token(control: Control) -> None:
    """A wrong or missing one is said to be that, with exit code 4."""
    env = {"CCR_CONTROL": control.tcp_address, "CCR_STATE_DIR": str(control.directory / "elsewhere")}
    without = await ccr_beside("config", "show", **env)
    wrong = await ccr_beside("config", "show", CCR_CONTROL_TOKEN="wrong", **env)
    right = await ccr_beside("config", "show", CCR_CONTROL_TOKEN=control.token, **env)
    named = await ccr_beside("config", "show", "--control", control.tcp_address, "--state-dir", str(control.state_dir))
    assert [done.returncode for done in (without, wrong, right, named)] == [4, 4, 0, 0]
    assert len(without.stderr.splitlines()) == 1
    assert "CCR_CONTROL_TOKEN" in without.stderr
